"""The numbers of an estimate: they add up, and they stay within what a device can do."""

from functools import cache

import pytest

from plans.costs.parts import STACK
from plans.estimate import Interval
from tests.plans.reports.samples import chained, large, small

large, small, chained = cache(large), cache(small), cache(chained)
ALL = pytest.mark.parametrize("make", [large, small, chained])


@ALL
def test_the_phases_of_a_single_pool_add_up_to_the_step(make):
    whole = sum(phase.seconds.expected for phase in make().phases)
    assert whole == pytest.approx(make().step.expected)


@ALL
def test_the_parts_of_a_phase_add_up_to_its_seconds(make):
    for phase in make().phases:
        assert sum(phase.parts.values()) == pytest.approx(phase.seconds.expected, rel=1e-4)
        known = {kind: part for kind, part in phase.parts.items() if kind != STACK}
        if phase.name != "gen":
            assert known[phase.limiter] == max(known.values())


@ALL
def test_phases_begin_where_those_before_them_end(make):
    end = 0.0
    for phase, start in make().starts():
        assert start == pytest.approx(end)
        end = start + phase.seconds.expected
    assert end == pytest.approx(make().step.expected)


@ALL
def test_the_peak_is_the_fullest_phase_and_fits(make):
    estimate = make()
    assert estimate.peak.total == max(one.total for one in estimate.memory)
    assert estimate.peak.total == pytest.approx(
        max(phase.peak_bytes for phase in estimate.plan.phases), rel=1e-6
    )
    assert estimate.peak.total <= estimate.peak.capacity_bytes


@ALL
def test_every_interval_holds_what_is_expected(make):
    estimate = make()
    for one in (estimate.step, estimate.run, estimate.device_hours, *_seconds(estimate)):
        assert 0 <= one.low <= one.expected <= one.high


@ALL
def test_device_hours_are_devices_times_hours(make):
    estimate = make()
    hours = estimate.plan.world_size * estimate.chain.seconds / 3600
    assert estimate.device_hours.expected == pytest.approx(hours)


@ALL
def test_no_phase_is_faster_than_the_device_can_be(make):
    for phase in make().phases:
        assert 0 <= phase.flops_share < 1


def test_dollars_are_hours_at_the_price_with_both_spreads():
    estimate = large()
    hours, (price,) = estimate.device_hours, estimate.prices
    assert estimate.dollars == Interval(
        low=hours.low * price.low,
        expected=hours.expected * price.typical,
        high=hours.high * price.high,
    )
    assert small().dollars is None


def _seconds(estimate):
    return [phase.seconds for phase in (*estimate.phases, *estimate.outside)]
