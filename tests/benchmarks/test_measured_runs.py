"""Runs of 20 steps on H200s beside what was promised, from benchmarks/results/4xh200-sxm_*."""

import json
from functools import cache
from pathlib import Path

import pytest

from launcher.measuring import Setting, write_inputs
from plans.load import Terms, search_job
from plans.source import read_yaml
from plans.spec import parse
from plans.times.calibration import read_own_calibration
from plans.units import GIB
from tests.benchmarks.test_own_phases import BOUND, ROOT, SMALL, STEP_BOUND

RESULTS = ROOT / "benchmarks" / "results" / "4xh200-sxm_2026-11-21"
RUNS = sorted(path.name for path in RESULTS.glob("qwen2.5-*_to_*.jsonl"))
LARGE = [name for name in RUNS if name.startswith("qwen2.5-7b")]
MEMORY_BOUND = 0.10
# Of a step; shorter phases are the host's.
LEAST_SHARE = 0.01
RESERVE_BYTES = 14 * GIB


def rows_of(name):
    return {row["phase"]: row for row in map(json.loads, (RESULTS / name).read_text().splitlines())}


@cache
def planned(folder: Path, name: str):
    """The plan of a run by the calibration that `rlplan bench micro` wrote on its machine."""
    row = rows_of(name)["step"]
    shape = json.loads((ROOT / "examples" / "qwen2.5-7b" / "config.json").read_text())
    model = folder / row["model"]
    model.mkdir()
    small = SMALL if row["model"] == "qwen2.5-0.5b" else {}
    (model / "config.json").write_text(json.dumps(shape | small))
    setting = Setting(
        model=model,
        hardware="h200-sxm",
        ranks=row["ranks"],
        train={**row["train"], "vpp": 1},
        rollout={"tp": row["rollout"]["tp"]},
        prompts=8,
        samples=8,
        prompt_tokens=row["prompt_tokens"],
        response_tokens=row["response_tokens"],
        micro_batch=row["micro_batch"],
    )
    run = folder / "run"
    run.mkdir()
    write_inputs(run, setting)
    (run / "job.yaml").write_text(json.dumps(setting.job()))
    own = read_own_calibration(RESULTS / row["estimated_with"])
    job = parse(read_yaml(run / "job.yaml"))
    return search_job(job, run, Terms(level=own.level, own=own)).plan()


@pytest.mark.parametrize("name", LARGE)
def test_after_bench_micro_phases_are_within_15_percent_and_steps_within_10(name, tmp_path):
    rows, plan = rows_of(name), planned(tmp_path, name)
    step = rows["step"]["ms"]
    assert 1e3 * plan.step_seconds == pytest.approx(step, rel=STEP_BOUND)
    for phase in plan.phases:
        took = rows[phase.name]["ms"]
        if took >= LEAST_SHARE * step:
            assert 1e3 * phase.seconds == pytest.approx(took, rel=BOUND), phase.name


@pytest.mark.parametrize("name", RUNS)
def test_peaks_of_every_phase_are_within_10_percent_of_the_account(name, tmp_path):
    """The account less its reserve: that is what torch's allocator does not hand out."""
    rows, plan = rows_of(name), planned(tmp_path, name)
    for phase in plan.phases:
        account = phase.peak_bytes - RESERVE_BYTES
        assert rows[phase.name]["peak_bytes"] == pytest.approx(account, rel=MEMORY_BOUND)


@pytest.mark.parametrize("name", RUNS)
def test_twenty_steps_received_what_they_must_and_idled_less_than_a_twentieth(name):
    step = rows_of(name)["step"]
    assert step["steps"] == 20
    assert step["received_bytes"] == step["bound_bytes"]
    assert step["idle_fraction"] <= 0.05
