"""experience/step-000120/: the batch of a step as HDF5, one file a rank, and its way back.

PyPI's h5py is serial, so each rank writes the rows it owns to a file of its own; the manifest
names shapes and number formats. The file is made in memory and written by us: HDF5 reports a
full disk without the system's reason, and a plain write has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor

from plans.plan import Plan
from runtime.batch import Experience, Sequences
from runtime.commit import commit_together, prune, step_name
from runtime.control import Control
from runtime.files import write_file
from runtime.manifest import DamagedFolder, Manifest, verify
from runtime.sharing import Rows, part
from runtime.versions import package_versions

FOLDER = "experience"
SUFFIX = ".h5"
REQUIRED = ("tokens", "prompt_lengths", "lengths", "rewards", "rollout_log_probs")
OPTIONAL = ("old_log_probs", "reference_log_probs", "values", "advantages", "returns")


def write_experience(
    experience: Experience, control: Control, run_folder: Path, plan: Plan
) -> Path | None:
    """Commit the batch of a step, each rank its share of the rows; all ranks call this.

    Every rank holds the whole batch. The plan's number of newest steps is kept; with none
    to keep nothing is written. Returns the folder.
    """
    keep = plan.job.experience.keep
    if not keep:
        return None
    rows = part(len(experience.sequences), control.rank, control.size)
    tensors = _tensors(experience)
    header = Manifest(
        step=experience.step,
        plan_digest=plan.digest,
        versions=package_versions(),
        details={name: _format(tensor) for name, tensor in tensors.items()},
    )

    def write(folder: Path) -> None:
        if len(rows):
            image = _image(experience.step, tensors, rows, plan.digest)
            write_file(folder / f"rank-{control.rank:04d}{SUFFIX}", image)

    folder = run_folder / FOLDER / step_name(experience.step)
    deadline = plan.phase("checkpoint").deadline_seconds
    commit_together(folder, header, write, control=control, deadline_seconds=deadline)
    if control.rank == 0:
        prune(folder.parent, experience.step, keep)
    return folder


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
    rest = {name: tensors.get(name) for name in OPTIONAL}
    return Experience(
        step=step,
        sequences=Sequences(
            tokens=tensors["tokens"],
            prompt_lengths=tensors["prompt_lengths"],
            lengths=tensors["lengths"],
        ),
        rewards=tensors["rewards"],
        rollout_log_probs=tensors["rollout_log_probs"],
        **rest,
    )


def _format(tensor: Tensor) -> dict[str, object]:
    return {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}


def _image(step: int, tensors: Mapping[str, Tensor], rows: Rows, plan_digest: str) -> bytes:
    """The bytes of one rank's HDF5 file."""
    import h5py

    buffer = BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs.update(step=step, first_row=rows.start, plan_digest=plan_digest)
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
