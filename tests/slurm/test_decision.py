"""What follows the end of an attempt, rule by rule."""

from dataclasses import replace

import pytest

from launcher.decision import STRIKES, Ending, decide, idle_attempts
from launcher.ledger import Attempt
from plans.record import ExitCode

GOOD = Ending(done=False, ended_well=True, code=0, reason="stopped", stop="limit", most_restarts=5)
KILLED = replace(GOOD, ended_well=False, code=137, reason="rank 1 killed by SIGKILL", stop="")


def attempt(number: int, step: int) -> Attempt:
    return Attempt(
        number=number,
        job_id="17",
        nodes="node1",
        devices=2,
        restart=number,
        started=0.0,
        ended=100.0,
        step=step,
        reason=f"cause {number}",
    )


def word(ending: Ending, steps=(), step=10) -> str:
    past = tuple(attempt(number, step) for number, step in enumerate(steps))
    return decide(ending, past, step).word


def test_a_complete_run_is_done_however_its_ranks_ended():
    assert word(replace(KILLED, done=True)) == "done"


def test_a_run_that_stopped_at_the_limit_goes_on():
    assert word(GOOD) == "again"


def test_a_run_that_its_user_stopped_does_not():
    decision = decide(replace(GOOD, stop="user"), (), 10)
    assert (decision.word, decision.code) == ("stop", 0)


def test_a_killed_rank_is_worth_another_attempt():
    assert word(KILLED) == "again"


@pytest.mark.parametrize(
    "code",
    [
        ExitCode.DATA,
        ExitCode.MISSING_INPUT,
        ExitCode.INTERNAL,
        ExitCode.CANNOT_WRITE,
        ExitCode.CHECKPOINT,
        ExitCode.REWARD,
        ExitCode.WRONG_WORLD,
        ExitCode.MASKS,
        ExitCode.VERSIONS,
        ExitCode.DISK,
    ],
)
def test_what_only_a_person_can_mend_is_not_tried_again(code):
    decision = decide(replace(KILLED, code=int(code)), (), 10)
    assert (decision.word, decision.code) == ("stop", code)


@pytest.mark.parametrize("code", [ExitCode.DEVICES, ExitCode.HOST_MEMORY, ExitCode.LINK])
def test_what_is_wrong_with_a_host_is_tried_on_others(code):
    assert word(replace(KILLED, code=int(code))) == "again"


def test_an_exception_of_a_device_is_tried_again():
    reason = "RuntimeError: CUDA error: uncorrectable ECC error encountered"
    assert word(replace(KILLED, code=70, reason=reason)) == "again"


def test_an_end_without_error_and_without_mark_is_a_failure():
    decision = decide(replace(KILLED, code=0), (), 10)
    assert (decision.word, decision.code) == ("stop", ExitCode.INTERNAL)


def test_restarts_are_bounded():
    assert word(replace(KILLED, restarts=4)) == "again"
    assert word(replace(KILLED, restarts=5)) == "stop"


def test_what_slurm_takes_slurm_queues_again():
    assert word(replace(KILLED, taken=True)) == "leave"


def test_a_waiting_job_of_the_same_run_goes_on():
    assert word(replace(GOOD, others=1)) == "leave"


def test_a_budget_that_is_used_up_ends_a_run_and_says_so():
    within, beyond = (replace(GOOD, used_hours=hours, budget_hours=8.0) for hours in (7.9, 8.0))
    assert word(within) == "again"
    assert decide(beyond, (), 10).reason == "8 of 8 device hours are used"


def test_three_attempts_without_a_new_step_end_a_run_with_all_causes():
    assert word(KILLED, steps=(10, 10)) == "again"
    decision = decide(KILLED, tuple(attempt(n, 10) for n in range(3)), 10)
    assert decision.word == "stop"
    assert decision.code == 137
    assert "nothing after step 10: cause 1; cause 2; rank 1 killed" in decision.reason


def test_a_new_step_clears_the_strikes():
    assert word(KILLED, steps=(10, 10, 10), step=11) == "again"


def test_a_run_that_never_commits_a_step_gets_three_attempts():
    assert word(KILLED, steps=(), step=0) == "again"
    assert word(KILLED, steps=(0,), step=0) == "again"
    assert word(KILLED, steps=(0, 0), step=0) == "stop"
    assert idle_attempts((attempt(0, 0), attempt(1, 0)), 0) == STRIKES
