"""Attempts that nobody saw end: their batch script, or the process that followed them, is gone."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from launcher.ledger import Attempt, Ledger, committed_step, note, read_ledger
from plans.source import UserError
from runtime.context import attempt_path
from runtime.environment import host_name

TAKEN = "taken by Slurm: node failure, pre-emption or requeue"
GONE = "the process that followed it was killed, or its machine went down"
# What stands in the place of a verdict: the batch script's, or none.
LEFT = "leave"
LOST: Literal["lost"] = "lost"
BOOT = Path("/proc/sys/kernel/random/boot_id")


def own_process() -> dict[str, Any]:
    """What tells this process from every other on this machine; empty where /proc is not."""
    pid = os.getpid()
    born = _born(pid)
    return {} if born is None else {"pid": pid, "born": born, "boot": _boot()}


def is_lost(attempt: Attempt) -> bool:
    """Whether an attempt outside of a queue has no end and nobody to write it.

    Only its own machine can tell; elsewhere it counts as under way.
    """
    if attempt.ended is not None or attempt.job_id or attempt.nodes != host_name():
        return False
    if not attempt.pid:
        return False
    return attempt.boot != _boot() or attempt.born != _born(attempt.pid)


def require_idle(run: Path) -> None:
    """UserError when a process of this machine works on a run, outside of a queue."""
    last = read_ledger(run).last
    if last is None or last.ended is not None or last.job_id or not last.pid:
        return
    if last.nodes == host_name() and not is_lost(last):
        raise UserError(f"{run}: process {last.pid} works on this run; end it, or wait")


def settled(ledger: Ledger, run: Path) -> Ledger:
    """The history with an end for what was lost on this machine: its last sign of life."""
    found = tuple(_closed(one, run) if is_lost(one) else one for one in ledger.attempts)
    return replace(ledger, attempts=found)


def close_lost(run: Path, now: float) -> None:
    """Write the end of the attempt before, where nobody did: whoever begins another calls this."""
    last = read_ledger(run).last
    if last is None or last.ended is not None:
        return
    closed = _closed(last, run)
    assert closed.ended is not None, "just given"
    note(
        run,
        "attempt_end",
        attempt=closed.number,
        ended=round(min(closed.ended, now), 3),
        verdict=closed.verdict,
        code=closed.code,
        step=closed.step,
        reason=closed.reason,
        excluded=[],
    )


def _closed(attempt: Attempt, run: Path) -> Attempt:
    return replace(
        attempt,
        ended=max(_last_sign(run, attempt), attempt.started),
        verdict=LEFT if attempt.job_id else LOST,
        step=committed_step(run),
        reason=TAKEN if attempt.job_id else GONE,
    )


def _last_sign(run: Path, attempt: Attempt) -> float:
    """When a rank of an attempt last wrote where it stands."""
    beats = (attempt_path(run, attempt.number) / "heartbeat").glob("*.json")
    return max((path.stat().st_mtime for path in beats), default=attempt.started)


def _born(pid: int) -> int | None:
    """When a process started, in clock ticks since the machine did; None when there is none.

    Field 22 of /proc/PID/stat (proc(5)), counted behind the name, which may hold spaces. A
    zombie is not there any more.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


def _boot() -> str:
    """What the kernel calls the time since the machine was started."""
    try:
        return BOOT.read_text().strip()
    except OSError:
        return ""
