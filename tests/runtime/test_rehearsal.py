"""Rehearsals: a plan walked without engines stops, resumes, and loses nothing."""

import json

import pytest

from launcher.folder import open_run
from launcher.local import start
from runtime.context import attempt_path
from tests.runtime.worlds import world_plan


def rehearse(folder, *, stopped):
    """One attempt of a rehearsal of six steps, asked to stop before it begins or not."""
    plan, run = world_plan(folder, ranks=2, steps=6), folder / "run"
    resume = run.exists()
    attempt = open_run(run, plan, resume=resume)
    if stopped:
        (attempt_path(run, attempt) / "stop").touch()
    outcome = start(plan, run, folder, attempt, resume=resume, rehearse=True, until=6)
    assert outcome.code == 0, outcome.text
    return run


def traces(run):
    """What was learned after each step."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [(row["step"], row["rehearsal/trace"]) for row in map(json.loads, lines)]


def test_a_rehearsal_stopped_and_resumed_learns_what_an_undisturbed_one_learns(tmp_path):
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    whole = rehearse(tmp_path / "whole", stopped=False)
    broken = rehearse(tmp_path / "broken", stopped=True)
    assert not (broken / "done").exists()
    assert len(traces(broken)) == 1
    rehearse(tmp_path / "broken", stopped=False)
    assert (broken / "done").exists()
    assert traces(broken) == traces(whole)
    assert [step for step, _ in traces(whole)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("ranks", [4, pytest.param(64, marks=pytest.mark.long)])
@pytest.mark.parametrize(
    "asked",
    [
        {"more": "roles: {actor_rollout: {pool: apart}}"},
        {"algorithm": "{name: ppo, kl: {weight: 0.1}}", "more": "roles: {critic: {pool: apart}}"},
        {"algorithm": "{name: grpo, lag: 1}"},
    ],
    ids=["split", "critic", "lag"],
)
def test_pools_meet_in_one_order_and_send_what_the_plan_says(asked, ranks, tmp_path):
    plan, run = world_plan(tmp_path, ranks=ranks, **asked), tmp_path / "run"
    assert plan.split
    outcome = start(plan, run, tmp_path, open_run(run, plan), rehearse=True)
    assert outcome.code == 0, outcome.text
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    (done,) = [event for event in events if event["event"] == "rehearsed"]
    assert done["ranks"] == ranks
    assert done["step"] == 2
