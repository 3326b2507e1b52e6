"""What follows the end of an attempt: the run is done, queued again, left to others, or given up.

A pure function of what is known, so that every rule can be read and tested in one place.
"""

from __future__ import annotations

from typing import Literal

from launcher.ledger import Attempt
from plans.record import ExitCode
from plans.values import frozen

# done: the run is complete. again: queue this job again. leave: Slurm or another job of the run
# goes on. stop: nothing goes on before a person says so.
Word = Literal["done", "again", "leave", "stop"]
# Only a person can mend these; another attempt would fail in the same way. What the preflight
# finds wrong with a host (devices, memory, links) is not here: the next hosts may be better.
FINAL = frozenset(
    {
        ExitCode.FINDING,
        ExitCode.USAGE,
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
    }
)
# An exception that names these comes from a device or a link, not from the code.
HARDWARE = (
    "CUDA error",
    "HIP error",
    "NCCL error",
    "RCCL error",
    "uncorrectable ECC",
    "device-side assert",
    "Unable to determine the device handle",
    "GPU has fallen off the bus",
)
# So many attempts in a row without a new committed step end a run.
STRIKES = 3
# What people and the queue write into the file `stop`.
BY_USER = "user"


@frozen
class Ending:
    """What is known of an attempt that has just ended.

    code: the first cause's, or srun's where no rank left one. ended_well: all ranks came to
    its end together. stop: what the file `stop` says, '' without one. taken: Slurm told the
    batch script to go (scancel, pre-emption, requeue). restarts: how often Slurm restarted
    this job. others: jobs of this run that wait in the queue.
    """

    done: bool
    ended_well: bool
    code: int
    reason: str
    stop: str = ""
    taken: bool = False
    restarts: int = 0
    most_restarts: int = 0
    others: int = 0
    used_hours: float = 0.0
    budget_hours: float | None = None


@frozen
class Decision:
    """What to do, the exit code of the batch script, and why."""

    word: Word
    code: int
    reason: str


def decide(ending: Ending, past: tuple[Attempt, ...], step: int) -> Decision:
    """What follows, given the earlier attempts and the step that is committed now."""
    if ending.done:
        return Decision(word="done", code=0, reason="the run is complete")
    if ending.ended_well and ending.stop == BY_USER:
        return Decision(word="stop", code=0, reason="stopped as asked")
    if not ending.ended_well and is_final(ending):
        code = ending.code or ExitCode.INTERNAL
        return Decision(word="stop", code=code, reason=ending.reason)
    if ending.taken:
        return Decision(word="leave", code=ending.code, reason=ending.reason)
    if reason := give_up_reason(ending, past, step):
        return Decision(word="stop", code=ending.code or ExitCode.FINDING, reason=reason)
    if ending.others:
        text = f"{ending.reason}; the next job of the chain goes on"
        return Decision(word="leave", code=0, reason=text)
    return Decision(word="again", code=0, reason=ending.reason)


def is_final(ending: Ending) -> bool:
    """Whether another attempt would end in the same way."""
    if any(phrase in ending.reason for phrase in HARDWARE):
        return False
    return ending.code in FINAL or ending.code == 0


def give_up_reason(ending: Ending, past: tuple[Attempt, ...], step: int) -> str:
    """Why the run should not be queued again; '' when it may."""
    if ending.budget_hours is not None and ending.used_hours >= ending.budget_hours:
        return f"{ending.used_hours:.3g} of {ending.budget_hours:.3g} device hours are used"
    if ending.restarts >= ending.most_restarts:
        return f"restarted {ending.restarts} times, the most that is allowed; {ending.reason}"
    if idle_attempts(past, step) >= STRIKES:
        causes = [attempt.reason for attempt in past[1 - STRIKES :]] + [ending.reason]
        told = "; ".join(dict.fromkeys(causes))
        return f"{STRIKES} attempts have committed nothing after step {step}: {told}"
    return ""


def idle_attempts(past: tuple[Attempt, ...], step: int) -> int:
    """How many of the last attempts, this one included, ended at the step they began with."""
    ends = [0, *(attempt.step for attempt in past), step]
    count = 0
    while count + 1 < len(ends) and ends[-2 - count] == ends[-1]:
        count += 1
    return count
