"""The checkpoints of a run, as commands that read them ask: which there are, and of what run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from launcher.history import event_rows
from launcher.standing import find_run
from plans.plan import Plan
from plans.source import UserError
from plans.values import frozen
from runtime.checkpoint import FOLDER, check_model
from runtime.commit import STEP_NAME, committed_steps, step_name
from runtime.manifest import read_manifest, verify
from runtime.trust import read_own_plan, require_own
from runtime.versions import package_versions

# What a checkpoint's format depends on.
TOLD_VERSIONS = ("megatron-core", "torch")


@frozen
class SavedRun:
    """A run on disk: its plan, and the folder that paths of its job file start at."""

    folder: Path
    plan: Plan
    base: Path

    @property
    def model_folder(self) -> Path:
        """Where config.json and the tokenizer are; UserError when they are no longer there."""
        found = self.base / self.plan.job.model.path
        if not (found / "config.json").is_file():
            raise UserError(
                f"{found}: no config.json of the run's model here; --base says where the paths "
                "of its job file start"
            )
        return found


def saved_run(name: str, base: Path | None) -> SavedRun:
    """The run of that name or path; UserError when there is none, or when it is not ours.

    `base` is found in what the run has written, unless it is given.
    """
    folder = find_run(name).resolve()
    require_own(folder)
    plan = read_own_plan(folder / "plan.json")
    return SavedRun(folder=folder, plan=plan, base=(base or _base(folder)).resolve())


def chosen_checkpoint(run: SavedRun, step: int | None, folder: Path | None) -> Path:
    """The checkpoint of a step, in a folder, or the newest; UserError says which there are."""
    if folder is not None:
        if STEP_NAME.fullmatch(folder.name) is None or not (folder / "manifest.json").is_file():
            raise UserError(
                f"{folder}: no checkpoint; give a folder such as {run.folder / FOLDER}/step-000120"
            )
        return folder.resolve()
    parent = run.folder / FOLDER
    steps = committed_steps(parent)
    if not steps:
        raise UserError(f"{parent}: the run has no checkpoint yet")
    if step is None:
        return parent / step_name(steps[-1])
    if step not in steps:
        there = ", ".join(map(str, steps))
        raise UserError(
            f"{parent}: no checkpoint of step {step}; there are those of {there} "
            "(checkpoint.keep and checkpoint.every say how many)"
        )
    return parent / step_name(step)


def check_whole(checkpoint: Path, plan: Plan) -> None:
    """Make sure that a checkpoint is ours, whole, and of the plan's model; UserError says why not.

    The engines' own files hold pickles: they are read only after this.
    """
    require_own(checkpoint)
    verify(checkpoint)
    check_model(checkpoint, plan)


def step_of(checkpoint: Path) -> int:
    """The step a checkpoint was saved after; DamagedFolder when its manifest cannot be read."""
    return read_manifest(checkpoint).step


def version_notes(checkpoint: Path) -> Iterator[str]:
    """What a person should know where a checkpoint was saved with other software than is here."""
    saved, here = read_manifest(checkpoint).versions, package_versions()
    for name in TOLD_VERSIONS:
        if name in saved and saved[name] != here.get(name):
            has = here.get(name) or "none"
            yield f"{checkpoint.name} was saved with {name} {saved[name]}, here is {has}"


def _base(folder: Path) -> Path:
    """Where the run's paths started: as its ranks wrote down, else beside runs/."""
    starts = [row for row in event_rows(folder) if row.get("event") == "start"]
    told = [row["base"] for row in starts if "base" in row]
    return Path(told[-1]) if told else folder.parent.parent
