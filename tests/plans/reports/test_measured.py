"""A run against its plan, phase by phase."""

from functools import cache

import pytest

from plans.record import StepRecord
from plans.reports.measured import measured_data, measured_run, measured_text
from plans.source import UserError
from tests.plans.reports.samples import small

small = cache(small)


def records(*factors, extra=()):
    """A step for each factor, all of whose phases take that many times the planned seconds."""
    plan = small().plan
    found = []
    for step, factor in enumerate(factors, 1):
        metrics = {f"timing_s/{each.name}": factor * each.seconds for each in plan.phases}
        metrics["timing_s/step"] = factor * plan.step_seconds
        found.append(StepRecord(step=step, metrics={**metrics, **dict(extra)}))
    return found


def test_every_phase_of_the_plan_is_held_against_its_median():
    run = measured_run(small().plan, records(9, 1.5, 2, 2.5), "runs/toy")
    assert [phase.name for phase in run.phases] == [p.name for p in small().plan.phases] + ["step"]
    assert all(phase.ratio == pytest.approx(2) for phase in run.phases)


def test_the_first_step_is_told_apart():
    run = measured_run(small().plan, records(9, 2, 2), "runs/toy")
    assert run.steps == 2
    assert run.first_seconds == pytest.approx(9 * small().plan.step_seconds)
    assert "4.50 times a steady one" in measured_text(run)


def test_what_no_plan_promised_is_shown_without_a_ratio():
    run = measured_run(small().plan, records(1, 1, extra={"timing_s/experience": 0.5}), "r")
    assert run.phase("experience").ratio is None
    assert run.phases[-1].name == "experience"


def test_eight_of_ten_steps_lie_between_the_ends():
    run = measured_run(small().plan, records(1, *range(1, 12)), "runs/toy")
    planned = small().plan.step_seconds
    assert (run.step.low, run.step.high) == pytest.approx((2 * planned, 10 * planned))


def test_a_run_of_one_step_cannot_be_held_against_its_plan():
    with pytest.raises(UserError, match="runs/toy: 1 step measured, at least 2"):
        measured_run(small().plan, records(1), "runs/toy")


def test_the_json_has_the_numbers_of_the_table():
    run = measured_run(small().plan, records(1, 2), "runs/toy")
    phases = {each["name"]: each for each in measured_data(run)["phases"]}
    assert phases["step"]["ratio"] == pytest.approx(2)
    assert phases["step"]["planned_seconds"] == pytest.approx(small().plan.step_seconds)
