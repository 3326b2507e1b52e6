"""RankContext: all that the rest of the runtime is told about the rank it runs on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from plans.plan import Plan
from plans.values import frozen
from runtime.control import Control
from runtime.files import make_folder
from runtime.heartbeat import Recorder
from runtime.stopping import Stops


@frozen
class RankContext:
    """One rank of one attempt, after all ranks have agreed on the plan.

    `base` is the folder that paths of the job file are relative to. `device` is how torch
    names this rank's device: 'cpu' or 'cuda:3'. `local_rank` counts the ranks of a host.
    `skip` names checks of the preflight that are left out.
    """

    plan: Plan
    base: Path
    run_folder: Path
    attempt: int
    control: Control
    recorder: Recorder
    host: str
    local_rank: int
    local_size: int
    device: str
    stops: Stops
    resume: bool = False
    rehearse: bool = False
    until: int | None = None
    skip: frozenset[str] = frozenset()

    @property
    def rank(self) -> int:
        return self.control.rank

    @property
    def attempt_folder(self) -> Path:
        return attempt_path(self.run_folder, self.attempt)

    @property
    def last_step(self) -> int:
        """The step this attempt ends with: the job's last, or an earlier one that was asked for."""
        steps = self.plan.job.steps
        return steps if self.until is None else min(self.until, steps)

    @contextmanager
    def outside(self, name: str) -> Iterator[None]:
        """While it lasts, this rank is in a planned phase that belongs to no step."""
        self.recorder.enter(name, self.recorder.beat.step, self.plan.phase(name).deadline_seconds)
        yield
        self.recorder.leave()

    def stop_asked(self) -> bool:
        """Whether to stop after this step, as rank 0 knows; the same answer on all ranks."""
        reason = self.stops.reason() if self.rank == 0 else ""
        return bool(self.control.broadcast(reason, what="stop file"))


def attempt_path(run_folder: Path, attempt: int) -> Path:
    return run_folder / f"attempt-{attempt}"


def attempts(run_folder: Path) -> list[int]:
    """The attempts that a run folder holds, oldest first."""
    names = [path.name.removeprefix("attempt-") for path in run_folder.glob("attempt-*")]
    return sorted(int(name) for name in names if name.isdigit())


def make_attempt(run_folder: Path, attempt: int) -> Path:
    """The folder of an attempt with its parts, readable by the owner alone."""
    folder = attempt_path(run_folder, attempt)
    for part in (folder, folder / "logs", folder / "heartbeat"):
        make_folder(part)
    return folder
