"""Slurm's own programs, called: patient while the controller is busy, plain about its refusals."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence

from plans.source import UserError
from slurm.program import Answer, answer_of

# How Slurm's programs say that the controller did not answer; the request may have arrived.
BUSY = (
    "Unable to contact slurm controller",
    "Socket timed out",
    "Zero Bytes were transmitted",
    "Connection refused",
    "Connection timed out",
    "Transport endpoint is not connected",
    "temporarily unable to accept job",
    "Resource temporarily unavailable",
    "Slurm backup controller in standby mode",
)
NO_CONFIGURATION = "Could not establish a configuration source"
# A controller that restarts is back within minutes.
PAUSES_SECONDS = (2.0, 5.0, 15.0, 40.0, 80.0, 180.0)
# Slurm's programs give up by themselves after MessageTimeout (10 s) a try, and try again.
CALL_SECONDS = 120.0
# What a job leaves in the environment must not steer one that is submitted from inside it.
INHERITED = ("SLURM_", "SLURMD_", "SBATCH_", "SRUN_", "PMI_", "PMI2_", "PMIX_", "OMPI_")
# Where Slurm's programs find their cluster.
SITE = frozenset({"SLURM_CONF"})

Sleep = Callable[[float], None]


class Refused(UserError):
    """Slurm understood and said no."""


class Absent(Refused):
    """There is no Slurm here: no programs, or no configuration."""


class Unreachable(UserError):
    """The controller did not answer; it may have heard."""


def call(*command: str) -> str:
    """What a program prints on stdout; Refused or Unreachable with what it says otherwise."""
    return _run(command).text


def call_both(*command: str) -> str:
    """What a program prints on both streams: `sbatch --test-only` answers on stderr."""
    answer = _run(command)
    return answer.text + answer.errors


def patiently(
    act: Callable[[], str],
    *,
    found: Callable[[], str] = lambda: "",
    pauses: Sequence[float] = PAUSES_SECONDS,
    sleep: Sleep = time.sleep,
) -> str:
    """The answer of `act`, tried again while the controller is unreachable.

    Before each new try `found` says whether the last one had arrived after all: its answer
    counts then. Unreachable when patience ends.
    """
    for pause in (*pauses, None):
        try:
            return act()
        except Unreachable:
            if pause is None:
                raise
        sleep(pause)
        try:
            if answer := found():
                return answer
        except Unreachable:
            continue
    raise AssertionError


def await_controller(pauses: Sequence[float] = PAUSES_SECONDS) -> None:
    """Return once the controller answers; Unreachable when it does not in all that time."""
    patiently(lambda: call("squeue", "--me", "--noheader"), pauses=pauses)


def without_inherited(environment: Mapping[str, str], kept: frozenset[str] = SITE) -> list[str]:
    """The command before a program that is to see nothing of the job it is called from."""
    names = [n for n in environment if n.startswith(INHERITED) and n not in kept]
    return ["env", *(word for name in sorted(names) for word in ("-u", name))]


def _run(command: Sequence[str]) -> Answer:
    try:
        answer = answer_of(command, seconds=CALL_SECONDS, apart=True)
    except FileNotFoundError:
        text = f"{command[0]} is not here; this command wants a machine of a Slurm cluster"
        raise Absent(text) from None
    except subprocess.TimeoutExpired:
        raise Unreachable(f"{command[0]} has not answered for {CALL_SECONDS:g} s") from None
    if answer.code:
        said = (answer.errors or answer.text).strip()
        if NO_CONFIGURATION in said:
            raise Absent(f"{command[0]} finds no Slurm cluster; SLURM_CONF names its slurm.conf")
        kind = Unreachable if is_busy(said) else Refused
        raise kind(said or f"{command[0]} ended with code {answer.code}")
    return answer


def is_busy(text: str) -> bool:
    """Whether an error of Slurm's programs means that the controller did not answer."""
    return any(phrase.lower() in text.lower() for phrase in BUSY)
