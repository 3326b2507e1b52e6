"""What a person sees of a run while it runs: one line an event or step, and a bar on a terminal."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, TextIO

from plans.plan import Plan
from plans.record import StepRecord
from plans.reports.run import event_line, step_line

# The mean over so many steps tells how long the rest will take.
ETA_STEPS = 20


class Screen(AbstractContextManager["Screen"]):
    """Prints the records of a run to `stream` as they come; `hear` is what `local.start` calls.

    Without a stream nothing is shown. On a terminal the bar shows how far the warm-up or the
    RL steps are.
    """

    def __init__(self, plan: Plan, stream: TextIO | None) -> None:
        self._plan, self._stream = plan, stream
        self._seconds: list[float] = []
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Screen:
        if self._stream and self._stream.isatty():
            from rich.console import Console
            from rich.progress import Progress

            self._bar = Progress(console=Console(file=self._stream), transient=True)
            self._task = self._bar.add_task("start", total=None)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def hear(self, name: str, record: dict[str, Any]) -> None:
        """Take in a record of metrics.jsonl ('metrics') or events.jsonl ('events')."""
        if name == "metrics":
            self._step(record)
            return
        if line := event_line(record):
            self.say(line)
        if record["event"] == "supervised":
            self._advance("warm-up", record["step"], record["steps"])

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        if self._bar:
            self._bar.console.print(line, highlight=False, markup=False, soft_wrap=True)
        elif self._stream:
            print(line, file=self._stream, flush=True)

    def _step(self, record: dict[str, Any]) -> None:
        numbers = {n: v for n, v in record.items() if n != "step" and v is not None}
        step, steps = record["step"], self._plan.job.steps
        self._seconds = [*self._seconds, numbers["timing_s/step"]][-ETA_STEPS:]
        left = (steps - step) * sum(self._seconds) / len(self._seconds)
        self.say(
            step_line(
                StepRecord(step=step, metrics=numbers),
                plan_seconds=self._plan.step_seconds,
                steps=steps,
                eta_seconds=left,
            )
        )
        self._advance("steps", step, steps)

    def _advance(self, what: str, done: int, total: int) -> None:
        if self._bar:
            self._bar.update(self._task, description=what, completed=done, total=total)
