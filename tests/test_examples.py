"""The job files of examples/ do what they say: all are planned, and the toy runs learn."""

import json
import shutil
from pathlib import Path

import pytest

from plans.load import make_plan
from tests.runs import ROOT, rlplan

EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_has_a_plan(path):
    plan = make_plan(path)
    assert plan.reshard.received_bytes == plan.reshard.bound_bytes


def test_the_held_out_rows_are_not_learned_from():
    data = ROOT / "examples" / "data"
    train, held_out = (
        {json.loads(line)["prompt"] for line in (data / f"addition-{name}.jsonl").open()}
        for name in ("train", "eval")
    )
    assert held_out
    assert not train & held_out


def learned(folder: Path, name: str) -> dict[str, float]:
    """The summary of an example that was run in a copy of the examples' folder."""
    shutil.copytree(ROOT / "examples", folder / "examples")
    done = rlplan(folder, "run", f"examples/{name}.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    summary: dict[str, float] = json.loads((folder / "runs" / name / "summary.json").read_text())
    return summary


@pytest.mark.engines
@pytest.mark.slow
def test_grpo_at_least_doubles_the_held_out_accuracy_and_reaches_sixty_percent(tmp_path):
    summary = learned(tmp_path, "addition-grpo")
    assert summary["accuracy_after"] >= 0.6
    assert summary["accuracy_after"] >= 2 * summary["accuracy_before"]


@pytest.mark.engines
@pytest.mark.slow
def test_ppo_with_critic_and_reference_improves_the_held_out_accuracy(tmp_path):
    summary = learned(tmp_path, "addition-ppo")
    assert summary["accuracy_after"] >= summary["accuracy_before"] + 0.1
