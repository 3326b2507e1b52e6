"""Watching a run from outside: lines as they are written, and ranks as they die."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from plans.record import REMEDIES, ExitCode, Verdict
from runtime.heartbeat import Beat, read_beats

# While ranks start, they are looked for this often: one that dies at once must be known by then.
START_POLL_SECONDS = 0.02
TIE_SECONDS = 0.1
# How mpirun and srun say that a rank was killed: MPICH's and Intel's Hydra, Open MPI, Slurm.
SIGNAL_LINES = (
    r"\(signal (\d+)\)",
    r"exited on signal (\d+)",
    r"task \d+: (Killed|Segmentation fault)",
)
SLURM_SIGNALS = {"Killed": signal.SIGKILL, "Segmentation fault": signal.SIGSEGV}
REMEDY_OF_KILL = "often the host ran out of memory: see dmesg; use fewer ranks or smaller batches"


class Tail:
    """The lines that others append to a JSON-lines file, each once and whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = path.stat().st_size if path.exists() else 0

    def records(self) -> Iterator[dict[str, Any]]:
        """The records written since the last call; what is not JSON is passed over."""
        try:
            with self._path.open("rb") as file:
                # A resumed run drops the steps it will do again.
                self._offset = min(self._offset, file.seek(0, os.SEEK_END))
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return
        whole = data.rfind(b"\n") + 1
        self._offset += whole
        for line in data[:whole].splitlines():
            with suppress(ValueError):
                yield json.loads(line)


class Deaths:
    """The order in which ranks of this host die.

    mpirun kills all ranks within milliseconds of the first death and (Hydra) does not say
    which died first. The kernel's queue of ready process handles keeps the order, but on a
    busy host mpirun may see a rank's sockets close before the kernel is through with it.
    """

    def __init__(self, heartbeat: Path, size: int) -> None:
        self._heartbeat, self._size = heartbeat, size
        self._poll = select.epoll()
        self._ranks: dict[int, int] = {}
        self.times: dict[int, float] = {}

    @property
    def first(self) -> list[int]:
        """The rank that died first, and those that died so soon after it that it may be they."""
        begin = min(self.times.values(), default=0.0)
        return [rank for rank, when in self.times.items() if when - begin < TIE_SECONDS]

    def wait(self, seconds: float) -> None:
        """Note who dies, for at most this long; returns at once when somebody does."""
        if len(self._ranks) + len(self.times) < self._size:
            self._take_up()
            seconds = min(seconds, START_POLL_SECONDS)
        for handle, _ in self._poll.poll(seconds, self._size):
            self._poll.unregister(handle)
            os.close(handle)
            self.times[self._ranks.pop(handle)] = time.time()

    def end(self) -> None:
        """Kill the ranks that outlived their mpirun, and let go of all."""
        self.wait(0)
        for handle in self._ranks:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            os.close(handle)
        self._poll.close()

    def _take_up(self) -> None:
        """Watch the ranks that have started since the last call."""
        known = {*self._ranks.values(), *self.times}
        for beat in read_beats(self._heartbeat, but=known):
            try:
                handle = os.pidfd_open(beat.pid)
            except ProcessLookupError:
                self.times[beat.rank] = time.time()
                continue
            self._ranks[handle] = beat.rank
            self._poll.register(handle, select.EPOLLIN)


def killed_verdict(output: str, deaths: Deaths, beats: tuple[Beat, ...]) -> Verdict | None:
    """The verdict that a rank killed by a signal could not write; None when none was killed."""
    number = killing_signal(output)
    if number is None or not deaths.times:
        return None
    known = {beat.rank: beat for beat in beats}
    suspects = [known[rank] for rank in deaths.first]
    # If the others waited for one that was at work, it is that one.
    at_work = [beat for beat in suspects if not beat.waiting]
    beat = at_work[0] if len(at_work) == 1 else suspects[0]
    name = signal.Signals(number).name
    remedy = REMEDY_OF_KILL if number == signal.SIGKILL else REMEDIES[ExitCode.INTERNAL]
    return Verdict(
        rank=beat.rank,
        host=beat.host,
        phase=beat.phase,
        step=beat.step,
        code=128 + number,
        reason=f"killed by {name}",
        remedy=remedy,
        unix_seconds=deaths.times[beat.rank],
    )


def killing_signal(output: str) -> int | None:
    """The signal that mpirun or srun reports for the first rank that died."""
    found = [match for pattern in SIGNAL_LINES if (match := re.search(pattern, output))]
    if not found:
        return None
    word = found[0][1]
    return int(word) if word.isdigit() else int(SLURM_SIGNALS[word])
