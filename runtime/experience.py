"""experience/step-000120/: the batch of a step as HDF5, one file a rank, and its way back.

PyPI's h5py is serial, so each rank writes the rows it owns to a file of its own; the manifest
names shapes and number formats. The file is made in memory and written by us: HDF5 reports a
full disk without the system's reason, and a plain write has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor

from plans.dataflow import Role
from plans.plan import Plan
from plans.values import frozen
from runtime.batch import Experience, Sequences
from runtime.commit import commit_together, prune, step_name
from runtime.control import Control
from runtime.manifest import DamagedFolder, Manifest, verify
from runtime.sharing import Rows, part
from runtime.versions import run_versions

FOLDER = "experience"
SUFFIX = ".h5"
REQUIRED = ("tokens", "prompt_lengths", "lengths", "rewards", "rollout_log_probs")
OPTIONAL = (
    "old_log_probs",
    "reference_log_probs",
    "values",
    "advantages",
    "returns",
    "baselines",
    "weights_steps",
)


@frozen
class ExperienceWriter:
    """Commits the batch of each step, and keeps that of the newest `keep` steps; 0 writes none.

    The ranks of `holders` have the whole batch, and write it.
    """

    control: Control
    folder: Path
    holders: range
    keep: int
    deadline_seconds: float
    plan_digest: str
    versions: Mapping[str, str]

    def write(self, experience: Experience) -> Path | None:
        """Commit a batch, each holder its share of the rows; all ranks call this.

        Returns the folder of the step.
        """
        if not self.keep:
            return None
        tensors = _tensors(experience)
        formats = {name: _format(tensor) for name, tensor in tensors.items()}
        header = Manifest(
            step=experience.step,
            plan_digest=self.plan_digest,
            versions=self.versions,
            details=self.control.broadcast(
                formats, root=self.holders.start, what="experience: formats"
            ),
        )
        folder = self.folder / step_name(experience.step)
        commit_together(
            folder,
            header,
            partial(self._write_rows, header, tensors),
            control=self.control,
            deadline_seconds=self.deadline_seconds,
        )
        if self.control.rank == 0:
            prune(self.folder, experience.step, self.keep)
        return folder

    def _write_rows(self, header: Manifest, tensors: Mapping[str, Tensor], draft: Path) -> None:
        """This rank's file, if there are rows for it."""
        if self.control.rank not in self.holders:
            return
        place = self.control.rank - self.holders.start
        rows = part(len(tensors["tokens"]), place, len(self.holders))
        if len(rows):
            name = f"rank-{self.control.rank:04d}{SUFFIX}"
            (draft / name).write_bytes(_image(header, tensors, rows))


def experience_writer(control: Control, run_folder: Path, plan: Plan) -> ExperienceWriter:
    """The writer of a run, as its plan wants it.

    With a lag the rollout's ranks are busy with the next batch while the others learn.
    """
    holders = range(control.size)
    if plan.job.algorithm.lag:
        holders = plan.pool(Role.ACTOR_TRAIN).ranks
    return ExperienceWriter(
        control=control,
        holders=holders,
        folder=run_folder / FOLDER,
        keep=plan.job.experience.keep,
        deadline_seconds=plan.phase("checkpoint").deadline_seconds,
        plan_digest=plan.digest,
        versions=run_versions(control),
    )


def read_experience(folder: Path) -> Experience:
    """The batch in a committed folder, bit for bit; DamagedFolder when it is not as written."""
    manifest = verify(folder)
    files = sorted(folder / name for name in manifest.files if name.endswith(SUFFIX))
    parts = sorted((_read_part(path) for path in files), key=lambda pair: pair[0])
    tensors = {
        name: torch.cat([tensors[name] for _, tensors in parts]) for name in manifest.details
    }
    for name, wanted in manifest.details.items():
        if _format(tensors[name]) != wanted:
            raise DamagedFolder(f"{folder}: {name} is {_format(tensors[name])}, not {wanted}")
    return _experience(manifest.step, tensors)


def _tensors(experience: Experience) -> dict[str, Tensor]:
    sequences = experience.sequences
    found = {
        "tokens": sequences.tokens,
        "prompt_lengths": sequences.prompt_lengths,
        "lengths": sequences.lengths,
    }
    for name in (*REQUIRED[3:], *OPTIONAL):
        tensor = getattr(experience, name)
        if tensor is not None:
            found[name] = tensor
    return found


def _experience(step: int, tensors: Mapping[str, Tensor]) -> Experience:
    found = Experience(
        step=step,
        sequences=Sequences(
            tokens=tensors["tokens"],
            prompt_lengths=tensors["prompt_lengths"],
            lengths=tensors["lengths"],
        ),
        rewards=tensors["rewards"],
        rollout_log_probs=tensors["rollout_log_probs"],
    )
    for name in OPTIONAL:
        setattr(found, name, tensors.get(name))
    return found


def _format(tensor: Tensor) -> dict[str, object]:
    return {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}


def _image(header: Manifest, tensors: Mapping[str, Tensor], rows: Rows) -> bytes:
    """The bytes of one rank's HDF5 file."""
    import h5py

    buffer = BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs.update(step=header.step, first_row=rows.start, plan_digest=header.plan_digest)
        for name, tensor in tensors.items():
            file.create_dataset(name, data=tensor[rows.slice].cpu().numpy())
    return buffer.getvalue()


def _read_part(path: Path) -> tuple[int, dict[str, Tensor]]:
    """(first row, tensors) of one rank's file."""
    import h5py

    # Through memory: HDF5 locks the files it opens, and not every file system can.
    with h5py.File(BytesIO(path.read_bytes()), "r") as file:
        tensors = {name: torch.from_numpy(data[()]) for name, data in file.items()}
        return int(file.attrs["first_row"]), tensors
