"""Whether the rollout's cache keeps its memory between batches is the planner's account."""

import json
from pathlib import Path

import pytest

from launcher.measuring import Setting, write_inputs
from plans.dataflow import Role
from plans.load import make_plan
from plans.source import UserError

ROOT = Path(__file__).parents[2]


def plan(folder, cache_gib, hardware="h200-sxm", sleep=None, model="qwen2.5-7b"):
    setting = Setting(
        model=ROOT / "examples" / model,
        hardware=hardware,
        ranks=2,
        train={"tp": 2},
        rollout={"tp": 2},
        prompts=8,
        samples=8,
        prompt_tokens=64,
        response_tokens=400,
        micro_batch=8,
        sleep=sleep,
    )
    write_inputs(folder, setting)
    job = setting.job()
    job["roles"]["actor_rollout"]["kv_cache_gib"] = cache_gib
    (folder / "job.yaml").write_text(json.dumps(job))
    return make_plan(folder / "job.yaml")


@pytest.mark.parametrize(("cache_gib", "sleeps"), [(1, False), (30, False), (55, True)])
def test_a_cache_sleeps_only_where_it_does_not_fit_beside_the_update(tmp_path, cache_gib, sleeps):
    found = plan(tmp_path, cache_gib)
    assert found.placement(Role.ACTOR_ROLLOUT).rollout.sleep is sleeps
    peaks = {phase.name: phase.peak_bytes for phase in found.phases}
    held = peaks["gen"] - peaks["adv"]
    assert (held > cache_gib * 2**30) is sleeps


def test_a_cache_that_sleeps_costs_its_waking_in_the_phase_that_generates(tmp_path):
    for name in ("kept", "slept"):
        (tmp_path / name).mkdir()
    kept, slept = plan(tmp_path / "kept", 30), plan(tmp_path / "slept", 30, sleep=True)
    seconds = [{one.name: one.seconds for one in each.phases} for each in (kept, slept)]
    longer = {name for name in seconds[0] if seconds[1][name] > seconds[0][name]}
    assert longer == {"gen"}


def test_a_cpu_s_cache_cannot_sleep(tmp_path):
    with pytest.raises(UserError, match="cannot give its cache back"):
        plan(tmp_path, 0.1, hardware="cpu", sleep=True, model="tiny-qwen2")
