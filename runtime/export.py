"""export/: the trained policy as a Hugging Face folder that `transformers` loads."""

from __future__ import annotations

from pathlib import Path

from runtime.control import Control
from runtime.engines import TrainEngine, hf
from runtime.files import refusals_told


def export(engine: TrainEngine, control: Control, folder: Path, model_folder: Path) -> None:
    """Write the policy of `engine` to `folder`, whole or not at all; all ranks call this.

    config.json and the tokenizer are those of `model_folder`. Raises OSError on rank 0 when
    the folder cannot be written.
    """
    tensors = engine.full_tensors()
    if control.rank == 0:
        with refusals_told(folder.parent):
            hf.export(folder, model_folder, tensors)
    else:
        # Each tensor is gathered by all ranks together.
        for _ in tensors:
            pass
    control.barrier("export")
