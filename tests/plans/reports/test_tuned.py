"""Constants from a run: they predict the run they come from."""

from dataclasses import asdict
from functools import cache

import pytest

from plans.reports.measured import measured_run
from plans.reports.tuned import calibration_text, tuned, tuned_text
from plans.times.calibration import read_own_calibration
from tests.plans.reports.samples import small
from tests.plans.reports.test_measured import records

small = cache(small)


def made(factor, count=5):
    found = records(factor, *[factor] * count)
    run = measured_run(small().plan, found, "runs/toy")
    return tuned(run, [record.metrics["timing_s/step"] for record in found[1:]])


def test_a_run_twice_as_slow_doubles_the_factors():
    found = made(2)
    for name, before in found.before.items():
        assert found.after[name] == pytest.approx(2 * before, rel=1e-4)
    assert "generate_factor 1.00 -> 2.00" in tuned_text(found)


def test_a_run_as_planned_changes_nothing():
    found = made(1)
    assert found.after == pytest.approx(found.before, rel=1e-4)


def test_steps_that_scatter_widen_the_interval():
    scattered = records(1, 1, 3, 1, 3)
    run = measured_run(small().plan, scattered, "runs/toy")
    found = tuned(run, [record.metrics["timing_s/step"] for record in scattered[1:]])
    assert found.near > made(1).near == pytest.approx(0)
    assert found.far >= found.near


def test_the_file_is_a_calibration_that_can_be_read(tmp_path):
    found = made(2)
    path = tmp_path / "mine.yaml"
    path.write_text(calibration_text(found, "runs/toy"))
    own = read_own_calibration(path)
    assert own.level == "trace"
    rates = asdict(own.step_rates(found.device))
    assert {name: rates[name] for name in found.after} == pytest.approx(found.after, rel=1e-3)
    assert own.spread[f"rlhf_step {found.device}"].far == pytest.approx(found.far, rel=0.01)
