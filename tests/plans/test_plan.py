"""The plan and its file."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from plans.chain import chain_of, lead_seconds, limit_seconds
from plans.dataflow import Role, phases_of
from plans.hardware import read_hardware
from plans.plan import Plan, dumps, read_plan
from plans.search import make_plan
from plans.source import PlanError, UserError
from tests.plans.samples import job, large_job, model

ROOT = Path(__file__).parents[2]


def planned(chosen, name="toy"):
    return make_plan(chosen, model(name), read_hardware(chosen.cluster.hardware))


@pytest.mark.parametrize(
    "chosen",
    [job(), job(algorithm={"name": "ppo", "kl": {"weight": 0.1}}, supervised={"steps": 3})],
)
def test_a_plan_survives_its_file(chosen, tmp_path):
    plan = planned(chosen)
    path = tmp_path / "plan.json"
    path.write_text(dumps(plan))
    again = read_plan(path)
    assert again == plan
    assert again.digest == plan.digest
    assert dumps(again) == path.read_text()


def test_the_same_job_gives_the_same_bytes_whatever_the_hash_seed():
    code = (
        "from tests.plans.samples import large_job, model\n"
        "from plans.hardware import read_hardware\n"
        "from plans.plan import dumps\n"
        "from plans.search import make_plan\n"
        "print(dumps(make_plan(large_job(), model('7b'), read_hardware('h100-sxm'))))"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "4242")
    }
    assert len(texts) == 1
    assert planned(large_job(), "7b").digest in texts.pop()


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"steps": 11}, {"temperature": 0.9}, {"name": "other"}]
)
def test_every_change_of_a_job_changes_the_digest(change):
    assert planned(job(**change)).digest != planned(job()).digest


def test_a_file_whose_numbers_were_edited_is_refused(tmp_path):
    path = tmp_path / "plan.json"
    path.write_text(dumps(planned(job())).replace('"lr": 1e-06', '"lr": 1e-05', 1))
    with pytest.raises(UserError, match=r"the digest does not match; edit the job file"):
        read_plan(path)


def test_phases_are_those_of_the_algorithm_with_seconds_and_deadlines():
    chosen = job(algorithm={"name": "ppo", "kl": {"weight": 0.1}})
    plan = planned(chosen)
    assert [phase.name for phase in plan.phases] == [phase.name for phase in phases_of(chosen)]
    for phase in (*plan.phases, *plan.outside):
        assert 0 < phase.seconds < phase.deadline_seconds
        assert 0 < phase.peak_bytes <= 16 * 2**30


def test_deadlines_have_a_floor_and_grow_with_the_plan():
    plan = planned(job())
    assert plan.phase("reshard").deadline_seconds == 120
    slow = planned(large_job(), "7b").phase("update_actor")
    assert slow.deadline_seconds == pytest.approx(10 * slow.seconds)
    with pytest.raises(KeyError):
        plan.phase("update_critic")


def test_seconds_are_rounded_so_that_machines_agree():
    for phase in planned(large_job(), "7b").phases:
        assert phase.seconds == float(f"{phase.seconds:.6g}")


def test_checkpoints_come_as_often_as_youngs_formula_says():
    """sqrt(2 C M), C seconds a checkpoint, M seconds between failures of four nodes."""
    plan = planned(large_job(), "7b")
    cost = plan.phase("checkpoint").seconds
    seconds = (2 * cost * 2000 * 3600 / 4) ** 0.5
    assert plan.checkpoint_every == int(seconds / plan.step_seconds)
    assert planned(job()).checkpoint_every == 10, "a short run saves once, at its end"
    assert planned(job(checkpoint={"every": 3})).checkpoint_every == 3


def test_every_role_has_the_settings_of_its_engine():
    plan = planned(job(algorithm={"name": "ppo", "kl": {"weight": 0.1}}))
    for placement in plan.placements:
        generates = placement.role == Role.ACTOR_ROLLOUT
        assert (placement.rollout is not None) == generates
        assert (placement.train is None) == generates


@pytest.mark.parametrize(
    ("text", "seconds"), [("00:01:30", 90), ("12:00:00", 43_200), ("2-00:30:00", 174_600)]
)
def test_time_limits_are_read_as_slurm_reads_them(text, seconds):
    assert limit_seconds(text) == seconds


def test_a_run_longer_than_the_limit_is_a_chain_that_does_every_step_once():
    plan = planned(large_job(slurm={"time": "02:00:00"}), "7b")
    chain = chain_of(plan, 2.5)
    assert chain.jobs > 1
    assert chain.stops[-1] == 300
    assert list(chain.stops) == sorted(set(chain.stops))
    spans = [stop - start for start, stop in zip((0, *chain.stops), chain.stops, strict=False)]
    room = 7200 - lead_seconds(plan, 2.5)
    assert all(plan.start_seconds + span * plan.step_seconds <= room for span in spans)


def test_a_run_within_the_limit_is_one_job():
    assert chain_of(planned(job()), 3).stops == (10,)


def test_a_limit_shorter_than_a_step_is_refused():
    with pytest.raises(PlanError, match="ends before one step"):
        planned(large_job(slurm={"time": "00:05:00"}), "7b")


@pytest.mark.parametrize("chosen", [job(), job(supervised={"steps": 3}, seed=7)])
def test_a_plan_as_json_is_what_pydantic_makes_of_it(chosen):
    plan = planned(chosen)
    assert plan.data() == TypeAdapter(Plan).dump_python(plan, mode="json")
