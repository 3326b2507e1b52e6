"""What is written of a run's jobs and attempts, read back: the memory that needs no Slurm.

The batch script and the commands append to events.jsonl, so that a run's history is known
where nothing is accounted and after slurmctld has forgotten the job (MinJobAge, 300 s).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from plans.values import frozen
from runtime.commit import committed_steps
from runtime.environment import host_name
from runtime.events import EVENTS, EventLog

HOUR = 3600.0


@frozen
class Attempt:
    """One start of the ranks in the queue; `ended` is None while it runs, or if nobody saw it end.

    `step` is the last committed step when it ended, `verdict` what the batch script decided.
    Without a queue `job_id` is empty, and `pid`, `born` and `boot` name the process that follows
    it (launcher/lost.py).
    """

    number: int
    job_id: str
    nodes: str
    devices: int
    restart: int
    started: float
    ended: float | None = None
    step: int = 0
    code: int = 0
    verdict: str = ""
    reason: str = ""
    pid: int = 0
    born: int = 0
    boot: str = ""

    def device_hours(self, now: float) -> float:
        """Hours of all its devices, up to now while it runs."""
        return max((self.ended or now) - self.started, 0.0) * self.devices / HOUR


@frozen
class Ledger:
    """The jobs that were queued for a run, oldest first, and its attempts."""

    job_ids: tuple[str, ...]
    attempts: tuple[Attempt, ...]

    @property
    def last(self) -> Attempt | None:
        return self.attempts[-1] if self.attempts else None

    def device_hours(self, now: float) -> float:
        """What all attempts have used, as this run counts."""
        return sum(attempt.device_hours(now) for attempt in self.attempts)


def read_ledger(run_folder: Path) -> Ledger:
    """The history of a run; empty when it was never queued."""
    job_ids: list[str] = []
    attempts: dict[int, Attempt] = {}
    for event in _events(run_folder / EVENTS):
        if event["event"] == "queued" and event["job_id"] not in job_ids:
            job_ids.append(event["job_id"])
        elif event["event"] == "attempt":
            attempts[event["attempt"]] = _begun(event)
        elif event["event"] == "attempt_end" and event["attempt"] in attempts:
            attempts[event["attempt"]] = _ended(attempts[event["attempt"]], event)
    ordered = tuple(attempts[number] for number in sorted(attempts))
    return Ledger(job_ids=tuple(job_ids), attempts=ordered)


def note(run_folder: Path, kind: str, **fields: Any) -> None:
    """Append one event of the queue: queued, attempt, attempt_end."""
    log = EventLog(run_folder)
    log.event(kind, **fields)
    log.close()


def begin_here(run_folder: Path, attempt: int, devices: int, process: Mapping[str, Any]) -> None:
    """Write down that an attempt begins on this machine, without a queue, and who follows it."""
    note(
        run_folder,
        "attempt",
        attempt=attempt,
        job_id="",
        nodes=host_name(),
        restart=0,
        devices=devices,
        **process,
    )


def end_here(run_folder: Path, attempt: int, code: int, reason: str) -> None:
    """Write down how an attempt on this machine ended."""
    note(
        run_folder,
        "attempt_end",
        attempt=attempt,
        ended=round(time.time(), 3),
        verdict="stop" if code else "done",
        code=int(code),
        step=committed_step(run_folder),
        reason=reason or "all ranks came to the end",
        excluded=[],
    )


def committed_step(run_folder: Path) -> int:
    """The newest step that is safe on disk; 0 when none is."""
    return max(committed_steps(run_folder / "checkpoints"), default=0)


def _events(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue  # cut short by a crash
        if isinstance(row, dict) and "event" in row:
            yield row


def _begun(event: dict[str, Any]) -> Attempt:
    return Attempt(
        number=event["attempt"],
        job_id=event["job_id"],
        nodes=event["nodes"],
        devices=event["devices"],
        restart=event["restart"],
        started=event["unix_seconds"],
        **{name: event[name] for name in ("pid", "born", "boot") if name in event},
    )


def _ended(attempt: Attempt, event: dict[str, Any]) -> Attempt:
    return replace(
        attempt,
        ended=event["ended"],
        step=event["step"],
        code=event["code"],
        verdict=event["verdict"],
        reason=event["reason"],
    )
