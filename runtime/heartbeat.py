"""Heartbeats: where each rank stands, in one small file a rank, and the deadline of its phase."""

from __future__ import annotations

import faulthandler
import json
import math
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, replace
from pathlib import Path

from plans.values import frozen

# One write of a fixed length replaces the whole record: readers never see half of one.
RECORD_BYTES = 512
# A rank that holds Python's lock cannot run its own watch; the C watchdog ends it this much later.
LOCKED_GRACE_SECONDS = 60.0


@frozen
class Beat:
    """Where a rank stands: in a phase, or (`waiting`) behind it until the others are.

    `count` is the number of phases entered so far, the same on ranks that stand together.
    """

    rank: int
    host: str
    pid: int
    phase: str = "start"
    step: int = 0
    count: int = 0
    waiting: bool = False
    deadline_seconds: float | None = None
    unix_seconds: float = 0.0


class Recorder:
    """Writes this rank's beats, and calls `overdue` when a phase outlasts its deadline.

    `overdue` runs on a thread of its own, since the rank is stuck; it should not return.
    """

    def __init__(self, folder: Path, rank: int, host: str, overdue: Callable[[Beat], None]) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._file = os.open(beat_path(folder, rank), flags, 0o600)
        self._overdue = overdue
        self._changed = threading.Event()
        self._due = math.inf
        self.beat = Beat(rank=rank, host=host, pid=os.getpid())
        self._write(self.beat, math.inf)
        threading.Thread(target=self._watch, name="deadline", daemon=True).start()

    def enter(self, phase: str, step: int, deadline_seconds: float = math.inf) -> None:
        """This rank begins a phase and promises to be through in time."""
        faulthandler.cancel_dump_traceback_later()
        limit = None
        if math.isfinite(deadline_seconds):
            limit = deadline_seconds
            faulthandler.dump_traceback_later(deadline_seconds + LOCKED_GRACE_SECONDS, exit=True)
        beat = replace(
            self.beat,
            phase=phase,
            step=step,
            count=self.beat.count + 1,
            waiting=False,
            deadline_seconds=limit,
        )
        self._write(beat, time.monotonic() + deadline_seconds)

    def leave(self) -> None:
        """This rank is through with its phase and waits for the others, who have deadlines."""
        faulthandler.cancel_dump_traceback_later()
        self._write(replace(self.beat, waiting=True, deadline_seconds=None), math.inf)

    def _write(self, beat: Beat, due: float) -> None:
        self.beat = replace(beat, unix_seconds=time.time())
        self._due = due
        record = json.dumps(asdict(self.beat), separators=(",", ":")).encode()
        os.pwrite(self._file, record[: RECORD_BYTES - 1].ljust(RECORD_BYTES - 1) + b"\n", 0)
        self._changed.set()

    def _watch(self) -> None:
        while True:
            self._changed.clear()
            beat, due = self.beat, self._due
            left = None if math.isinf(due) else max(due - time.monotonic(), 0.0)
            if not self._changed.wait(left) and self.beat is beat:
                self._overdue(beat)
                return


def beat_path(folder: Path, rank: int) -> Path:
    return folder / f"{rank}.json"


def read_beats(folder: Path, but: Collection[int] = ()) -> tuple[Beat, ...]:
    """The latest beats of the ranks that have started, in rank order; those in `but` left out."""
    beats = []
    for path in folder.glob("*.json"):
        if int(path.stem) in but:
            continue
        try:
            beats.append(Beat(**json.loads(path.read_text())))
        except (ValueError, TypeError):
            continue  # created and not yet written
    return tuple(sorted(beats, key=lambda beat: beat.rank))


def laggards(beats: Iterable[Beat]) -> tuple[Beat, ...]:
    """The ranks that stand behind the others; empty when all stand together."""
    known = list(beats)
    stands = {(beat.count, beat.waiting) for beat in known}
    if len(stands) < 2:
        return ()
    return tuple(beat for beat in known if (beat.count, beat.waiting) == min(stands))


def beat_text(beat: Beat, now: float) -> str:
    """'rank 37 (node12) in reshard of step 3 for 412 s'."""
    place = f"behind {beat.phase}" if beat.waiting else f"in {beat.phase}"
    seconds = max(now - beat.unix_seconds, 0.0)
    return f"rank {beat.rank} ({beat.host}) {place} of step {beat.step} for {seconds:.3g} s"
