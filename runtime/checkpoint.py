"""Checkpoints: what a run needs to go on from a step, and the choice of the one to go on from."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from plans.dataflow import Role
from plans.plan import Plan
from plans.record import ExitCode
from plans.values import frozen
from runtime.commit import (
    STEP_NAME,
    Commit,
    committed_steps,
    prune,
    step_name,
    verify_together,
)
from runtime.control import Control
from runtime.engines import Saving
from runtime.events import EventLog
from runtime.files import make_folder, refusals_told, remove_unfinished, write_file, write_json
from runtime.manifest import DamagedFolder, Manifest
from runtime.mistakes import RunMistake
from runtime.saving import Unfinished
from runtime.versions import run_versions

FOLDER = "checkpoints"
LATEST = "latest"
STATE = "state.json"


class Saved(Protocol):
    """What a checkpoint holds of an engine."""

    def begin_save(self, folder: Path, *, copies: bool) -> Saving:
        """Begin to write model and optimizer, all ranks together; a copy of them on request."""
        ...

    def load(self, folder: Path) -> None:
        """Take over what was saved, whatever the layout was."""
        ...


class CheckpointError(RunMistake):
    """There are checkpoints, and none of them can be read."""

    code = ExitCode.CHECKPOINT


@frozen
class Resumed:
    """A checkpoint that the engines now hold: its step, and the state that was saved with it."""

    step: int
    state: Mapping[str, Any]
    folder: Path


@dataclass(slots=True, kw_only=True)
class Saver:
    """Writes the checkpoints of a run: at once, or, if the job asks for it, beside its steps.

    All ranks call its methods at the same time. One checkpoint is on its way at a time. Older
    ones beyond the plan's number are removed once it is safe, and never before.
    """

    engines: Mapping[Role, Saved]
    control: Control
    run_folder: Path
    plan: Plan
    events: EventLog
    _unfinished: Unfinished | None = None
    _held_seconds: float = 0.0

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Write the checkpoint of a finished step, or begin to; the one before is committed first.

        `engines` are those of this rank that learn. `state` is what else the run wants back,
        in JSON.
        """
        self.wait()
        began = time.perf_counter()
        with self._holding():
            self._unfinished = self._begun(step, state, began)
            self._unfinished.start()
        if not self._unfinished.threaded:
            self.wait()

    @property
    def busy(self) -> bool:
        """Whether a checkpoint was begun and is not committed."""
        return self._unfinished is not None

    def poll(self) -> None:
        """Between two steps: commit what all ranks have written meanwhile."""
        self._advance(wait=False)

    def wait(self) -> None:
        """Return when the checkpoint that was begun is committed."""
        self._advance(wait=True)

    def held_seconds(self) -> float:
        """Seconds in which checkpoints kept this rank from its steps, since this was asked."""
        held, self._held_seconds = self._held_seconds, 0.0
        return held

    def _begun(self, step: int, state: Mapping[str, Any], began: float) -> Unfinished:
        control, plan = self.control, self.plan
        everyones = control.gather([str(role) for role in self.engines], what="checkpoint: roles")
        roles = sorted({role for names in everyones for role in names})
        commit = Commit(
            folder=self.run_folder / FOLDER / step_name(step),
            header=Manifest(step=step, plan_digest=plan.digest, versions=run_versions(control)),
            control=control,
            seconds=_deadline(plan),
        )
        threaded = plan.job.checkpoint.background
        with commit.cleared_when_refused():
            commit.begin()
            with commit.peer_may_leave(), refusals_told(commit.temporary):
                if control.rank == 0:
                    for role in roles:
                        make_folder(commit.temporary / role)
                    about = {"step": step, "roles": roles, "model": _model(plan)}
                    write_json(commit.temporary / STATE, {**about, "state": dict(state)})
                control.barrier("checkpoint: folders", _deadline(plan))
                parts = [
                    self.engines[role].begin_save(commit.temporary / role, copies=threaded)
                    for role in sorted(self.engines)
                ]
        return Unfinished(step=step, commit=commit, parts=parts, threaded=threaded, began=began)

    def _advance(self, *, wait: bool) -> None:
        one = self._unfinished
        if one is None:
            return
        with self._holding():
            if not one.advance(wait=wait):
                return
            self._unfinished = None
            if self.control.rank == 0:
                parent = one.folder.parent
                write_file(parent / LATEST, f"{one.folder.name}\n".encode())
                prune(parent, one.step, self.plan.job.checkpoint.keep)
        self.events.event(
            "checkpoint",
            step=one.step,
            folder=one.folder.name,
            held_seconds=round(one.held_seconds, 3),
            seconds=round(one.seconds, 3),
        )

    @contextmanager
    def _holding(self) -> Iterator[None]:
        began, one = time.perf_counter(), self._unfinished
        yield
        spent = time.perf_counter() - began
        self._held_seconds += spent
        if one := one or self._unfinished:
            one.held_seconds += spent


def load_latest(
    engines: Mapping[Role, Saved],
    control: Control,
    run_folder: Path,
    plan: Plan,
    events: EventLog,
) -> Resumed | None:
    """Give the engines the newest checkpoint that is whole; None when the run has none yet.

    All ranks call this and go on from the same one: first what `latest` names, then the
    others from new to old. Each one passed over is an event and a line in the log. The plan
    may be another than the one that saved, its model may not. Raises CheckpointError with
    all reasons when there are checkpoints and none can be used.
    """
    parent = run_folder / FOLDER
    found = _candidates(parent) if control.rank == 0 else None
    names, reasons = control.broadcast(found, what="checkpoint: candidates")
    for reason in reasons:
        events.problem("checkpoint_problem", reason)
    for name in names:
        try:
            about = _usable(parent / name, plan, control)
        except DamagedFolder as error:
            events.problem("checkpoint_problem", f"checkpoint {name} passed over: {error}")
            reasons.append(str(error))
        else:
            return _restore(parent / name, about, engines)
    if reasons:
        raise CheckpointError(
            "\n".join(reasons)
            + f"\nno checkpoint can be read; restore one, or remove {parent} to start from step 0"
        )
    return None


def _candidates(parent: Path) -> tuple[list[str], list[str]]:
    """The names of checkpoints in the order of trying, and what is wrong with `latest`."""
    remove_unfinished(parent)
    names = [step_name(step) for step in reversed(committed_steps(parent))]
    latest = parent / LATEST
    try:
        text = latest.read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        return names, [f"{latest}: missing"] if names else []
    if not STEP_NAME.fullmatch(text):
        return names, [f"{latest}: {text[:40]!r} is not the name of a checkpoint"]
    return [text, *[name for name in names if name != text]], []


def _usable(folder: Path, plan: Plan, control: Control) -> dict[str, Any]:
    """What state.json says of a checkpoint; DamagedFolder when this plan cannot go on from it."""
    verify_together(folder, control, _deadline(plan))
    about = check_model(folder, plan)
    wanted = [role for role in (Role.ACTOR_TRAIN, Role.CRITIC) if plan.has(role)]
    missing = [role for role in wanted if role not in about["roles"]]
    if missing:
        raise DamagedFolder(f"{folder}: holds no {', '.join(missing)}")
    return about


def check_model(folder: Path, plan: Plan) -> dict[str, Any]:
    """What state.json says of a checkpoint; DamagedFolder when its model is not the plan's."""
    about: dict[str, Any] = json.loads((folder / STATE).read_bytes())
    differences = _differences(about["model"], _model(plan))
    if differences:
        raise DamagedFolder(f"{folder}: of another model: {differences}")
    return about


def _restore(folder: Path, about: Mapping[str, Any], engines: Mapping[Role, Saved]) -> Resumed:
    for role in sorted(engines):
        engines[role].load(folder / role)
    return Resumed(step=int(about["step"]), state=about["state"], folder=folder)


def _deadline(plan: Plan) -> float:
    return plan.phase("checkpoint").deadline_seconds


def _model(plan: Plan) -> dict[str, Any]:
    """The numbers of the model as JSON brings them back."""
    numbers: dict[str, Any] = json.loads(json.dumps(asdict(plan.model)))
    return numbers


def _differences(saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """'hidden_size 64, the plan says 128', for each number that both know and that differs."""
    names = sorted(name for name in saved.keys() & wanted.keys() if saved[name] != wanted[name])
    return "; ".join(f"{name} {saved[name]}, the plan says {wanted[name]}" for name in names)
