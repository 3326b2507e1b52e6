"""A run whose launcher was killed is lost, not running; one whose launcher lives is left alone."""

import json
import os
import subprocess
import sys
import time

import pytest

from launcher.ledger import begin_here, end_here, read_ledger
from launcher.lost import GONE, TAKEN, close_lost, is_lost, own_process, require_idle
from launcher.standing import standing, standing_text
from plans.plan import dumps
from plans.source import UserError
from runtime.context import make_attempt
from tests.runtime.participants import tiny_plan

FOLLOWER = """
import json, sys
from launcher.lost import own_process
print(json.dumps(own_process()), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "runs/tiny"
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text(dumps(tiny_plan(tmp_path)))
    make_attempt(folder, 0)
    return folder


@pytest.fixture
def follower():
    """(a living process, what tells it from others)."""
    process = subprocess.Popen(
        [sys.executable, "-c", FOLLOWER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield process, json.loads(process.stdout.readline())
    process.kill()
    process.communicate()


def test_a_run_is_running_as_long_as_its_follower_lives(run, follower):
    process, mark = follower
    begin_here(run, 0, 2, mark)
    assert standing(run, time.time()).state == "running"
    with pytest.raises(UserError, match=f"process {process.pid} works on this run"):
        require_idle(run)


def test_a_run_whose_follower_was_killed_is_lost_and_uses_no_more_hours(run, follower):
    process, mark = follower
    begin_here(run, 0, 2, mark)
    process.kill()
    process.wait()
    here = standing(run, time.time() + 3600)
    assert here.state == "lost"
    assert here.used_hours < 0.1
    assert GONE in standing_text(here)
    require_idle(run)


def test_a_follower_that_nobody_has_waited_for_is_gone_too(run, follower):
    process, mark = follower
    begin_here(run, 0, 2, mark)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert is_lost(read_ledger(run).last)


@pytest.mark.parametrize("change", [{"born": 1}, {"boot": "another"}])
def test_another_process_of_the_same_number_is_not_the_follower(run, change):
    begin_here(run, 0, 2, {**own_process(), **change})
    assert is_lost(read_ledger(run).last)


def test_what_another_machine_runs_counts_as_under_way(run, monkeypatch):
    monkeypatch.setattr("launcher.ledger.host_name", lambda: "elsewhere")
    begin_here(run, 0, 2, {**own_process(), "born": 1})
    assert not is_lost(read_ledger(run).last)
    assert standing(run, time.time()).state == "running"
    require_idle(run)


def test_the_next_attempt_writes_the_end_of_a_lost_one_and_does_not_blame_slurm(run):
    begin_here(run, 0, 2, {**own_process(), "born": 1})
    close_lost(run, time.time())
    last = read_ledger(run).last
    assert (last.verdict, last.reason) == ("lost", GONE)
    assert "Slurm" not in last.reason
    assert "Slurm" in TAKEN


def test_an_attempt_that_ended_is_left_as_it_is(run):
    begin_here(run, 0, 2, own_process())
    end_here(run, 0, 0, "")
    before = read_ledger(run)
    close_lost(run, time.time())
    assert read_ledger(run) == before
