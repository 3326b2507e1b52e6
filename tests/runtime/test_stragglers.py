"""Slow ranks are told by rank, phase and ratio, and healthy ones are left alone."""

import json

import pytest

from plans.record import StepRecord
from runtime.stragglers import RATIO, STEPS, WARM_UP_STEPS, Straggler, Stragglers
from tests.runtime.worlds import run_world, world_plan


def told(*steps: tuple[float, ...]) -> list[list[Straggler]]:
    """What is said after each step, from the seconds of its ranks in one phase."""
    looking = Stragglers()
    return [
        looking.look(
            StepRecord(step=step, ranks=tuple({"gen": each, "step": 9.0} for each in seconds))
        )
        for step, seconds in enumerate(steps, start=1)
    ]


def test_a_rank_that_is_slow_in_most_steps_is_told_once_in_ten():
    said = told(*[(1.0, 1.0, 1.5, 1.0)] * (WARM_UP_STEPS + 2 * STEPS))
    assert [len(each) for each in said].count(1) == 2
    assert said[WARM_UP_STEPS + STEPS - 1] == [Straggler(rank=2, phase="gen", ratio=1.5)]


@pytest.mark.parametrize(
    "steps",
    [
        [(1.0, 1.1, 0.9, 1.0)] * 30,
        [(1.0, 9.0, 1.0, 1.0)] + [(1.0, 1.0, 1.0, 1.0)] * 30,
        [(1.0, 2.0, 1.0, 1.0), (2.0, 1.0, 1.0, 1.0)] * 15,
        [(0.001, 0.01, 0.001, 0.001)] * 30,
        [(1.0,)] * 30,
    ],
    ids=["a little", "the first step", "in turns", "milliseconds", "one rank"],
)
def test_what_is_no_straggler_is_not_told(steps):
    assert told(*steps) == [[]] * len(steps)


def test_the_slower_one_stands_first():
    said = told(*[(1.0, 1.0, 1.0, 1.4, 2.0)] * (WARM_UP_STEPS + STEPS))[-1]
    assert [one.rank for one in said] == [4, 3]
    assert all(one.ratio >= RATIO for one in said)


def test_a_rank_that_sleeps_in_a_phase_is_found_by_the_ranks_themselves(tmp_path, monkeypatch):
    monkeypatch.setenv("SLOW", "rank=1,phase=gen")
    plan = world_plan(tmp_path, ranks=3, steps=WARM_UP_STEPS + STEPS)
    outcome, attempt = run_world(tmp_path, plan)
    assert outcome.code == 0, outcome.text
    events = [json.loads(line) for line in (tmp_path / "run/events.jsonl").open()]
    (found,) = (event for event in events if event["event"] == "straggler")
    assert (found["rank"], found["phase"], found["step"]) == (1, "gen", plan.job.steps)
    assert found["ratio"] > RATIO
    assert found["host"] != "?"
    log = next(attempt.glob("logs/*.0.log")).read_text()
    assert "times the others' seconds in gen" in log
