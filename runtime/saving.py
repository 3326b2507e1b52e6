"""A checkpoint on its way to the disk, at once or beside the steps that follow.

begin -> written by every rank -> completed by the engines -> synced and hashed -> committed.
Until the last of these the checkpoint before it is the newest, whatever ends the run.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.background import BUSY, FAILED, Job
from runtime.commit import Commit
from runtime.control import PeerLost
from runtime.engines import Saving
from runtime.files import refusals_told
from runtime.manifest import FileEntry


@dataclass(slots=True, kw_only=True)
class Unfinished:
    """A checkpoint that was begun; all ranks hold one at the same time.

    `held_seconds` are those in which it kept this rank from its steps, `seconds` all since it
    was begun, at `began` of the performance counter.
    """

    step: int
    commit: Commit
    parts: Sequence[Saving]
    threaded: bool
    began: float
    held_seconds: float = 0.0
    _writing: Job[None] | None = None
    _sealing: Job[Mapping[str, FileEntry]] | None = None

    @property
    def folder(self) -> Path:
        return self.commit.folder

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.began

    def start(self) -> None:
        """Let this rank write, in a thread where the steps go on meanwhile."""
        self._writing = Job(self._write, threaded=self.threaded)

    def advance(self, *, wait: bool) -> bool:
        """Go as far as all ranks have come, together; whether the checkpoint is committed.

        With `wait` it is, when this returns. Raises OSError on a rank that could not write,
        after all that was written is removed, and PeerLost on the others.
        """
        assert self._writing is not None, "started before it goes on"
        if self._sealing is None:
            if not self._passed(self._writing, wait):
                return False
            with self.commit.cleared_when_refused(), self.commit.peer_may_leave():
                for part in self.parts:
                    part.finish()
                self.commit.control.barrier(f"{self.commit.what}: complete", self.commit.seconds)
            self._sealing = Job(self._seal, threaded=self.threaded)
        if not self._passed(self._sealing, wait):
            return False
        with self.commit.cleared_when_refused():
            self.commit.put_in_place(self.commit.gathered(self._sealing.result()))
        return True

    def _write(self) -> None:
        with refusals_told(self.commit.temporary):
            for part in self.parts:
                part.write()

    def _seal(self) -> Mapping[str, FileEntry]:
        with refusals_told(self.commit.temporary):
            return self.commit.seal()

    def _passed(self, job: Job[Any], wait: bool) -> bool:
        """Whether the work is done on all ranks; the error of those where it failed."""
        if wait:
            job.wait()
        commit = self.commit
        what = f"{commit.what}: written"
        states = commit.control.gather(job.state, what=what, seconds=commit.seconds)
        failed = tuple(rank for rank, state in enumerate(states) if state == FAILED)
        if commit.control.rank in failed:
            with commit.cleared_when_refused():
                job.result()
        if failed:
            raise PeerLost(commit.what, 0.0, failed)
        return BUSY not in states
