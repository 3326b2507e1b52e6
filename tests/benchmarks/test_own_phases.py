"""Plans beside what this project's engines took on H200 (benchmarks/results)."""

import json
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from launcher.measuring import Setting, write_inputs
from plans.load import make_plan

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "benchmarks" / "results").glob("qwen2.5-*.jsonl"))
BOUND, STEP_BOUND = 0.15, 0.10
# below this a phase is a few launches
LEAST_MS = 5.0
SMALL = {
    "hidden_size": 896,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "intermediate_size": 4864,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
}


def measured_steps() -> dict[str, list[dict]]:
    """The rows of whole steps by command: the last run of a command counts."""
    found: dict[str, dict[str, list[dict]]] = {}
    for file in FILES:
        for line in file.read_text().splitlines():
            row = json.loads(line)
            if row["bench"] == "step" and "train" in row and row["plan"]:
                found.setdefault(row["command"], {}).setdefault(row["plan"], []).append(row)
    return {command: list(runs.values())[-1] for command, runs in found.items()}


STEPS = measured_steps()


def planned_ms(folder: Path, row: dict) -> dict[str, float]:
    """Milliseconds by phase of the plan that the command would run today."""
    shape = json.loads((ROOT / "examples" / "qwen2.5-7b" / "config.json").read_text())
    model = folder / row["model"]
    model.mkdir()
    small = SMALL if row["model"] == "qwen2.5-0.5b" else {}
    (model / "config.json").write_text(json.dumps(shape | small))
    words = shlex.split(row["command"])
    options = dict(pairwise(words))
    setting = Setting(
        model=model,
        hardware=options["--hardware"],
        ranks=row["ranks"],
        train={axis: row["train"].get(axis, 1) for axis in ("tp", "pp", "dp", "vpp")},
        rollout={"tp": row["rollout"]["tp"]},
        prompts=int(options["--prompts"]),
        samples=int(options["--samples"]),
        prompt_tokens=row["prompt_tokens"],
        response_tokens=row["response_tokens"],
        micro_batch=int(options.get("--micro-batch", 0)) or None,
        precision=row["precision"],
    )
    run = folder / "run"
    run.mkdir()
    write_inputs(run, setting)
    (run / "job.yaml").write_text(json.dumps(setting.job()))
    plan = make_plan(run / "job.yaml")
    found = {phase.name: 1e3 * phase.seconds for phase in plan.phases}
    return found | {"step": 1e3 * plan.step_seconds}


@pytest.mark.parametrize("command", STEPS)
def test_phases_of_our_own_steps_take_what_is_planned(command: str, tmp_path: Path) -> None:
    rows = STEPS[command]
    planned = planned_ms(tmp_path, rows[0])
    for row in rows:
        phase, took = row["phase"], row["ms"]
        bound = STEP_BOUND if phase == "step" else BOUND
        if took >= LEAST_MS:
            assert abs(planned[phase] / took - 1) < bound, (phase, planned[phase], took)
