"""When a run should stop at the next boundary of steps: asked by file, by signal, by the clock."""

from __future__ import annotations

import math
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from runtime.files import write_file

STOP = "stop"


@dataclass(slots=True, kw_only=True)
class Stops:
    """The reasons to stop that rank 0 knows of; it decides for all ranks.

    `ends` is when the queue takes the job away, in unix seconds. `step_seconds` and
    `save_seconds` are what a slow step and a slow checkpoint take: a step is begun only when
    both fit in what is left. A step that took longer than that raises the estimate.
    """

    folder: Path
    ends: float = math.inf
    step_seconds: float = 0.0
    save_seconds: float = 0.0
    terminated: bool = False
    _last: float = field(default_factory=time.monotonic)
    _asked: bool = False

    def reason(self) -> str:
        """Why the run should stop now, '' when it should go on; called once after each step."""
        now = time.monotonic()
        if self._asked:  # the time before the first question is that of the start
            self.step_seconds = max(self.step_seconds, now - self._last)
        self._last, self._asked = now, True
        if (self.folder / STOP).exists():
            return (self.folder / STOP).read_text().strip() or "asked"
        if self.terminated:
            return self._note("terminated")
        if time.time() + self.step_seconds + self.save_seconds >= self.ends:
            return self._note("limit")
        return ""

    def heed_termination(self) -> None:
        """Take SIGTERM, which the queue sends before it kills, as a wish to stop in good order."""

        def note(_number: int, _frame: FrameType | None) -> None:
            self.terminated = True

        signal.signal(signal.SIGTERM, note)

    def _note(self, reason: str) -> str:
        """Leave the reason where a person, or the batch script, would have asked."""
        write_file(self.folder / STOP, f"{reason}\n".encode())
        return reason
