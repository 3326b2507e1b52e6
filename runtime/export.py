"""export/: the trained policy as a Hugging Face folder that `transformers` loads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from runtime.control import Control
from runtime.engines import hf
from runtime.files import refusals_told


class Whole(Protocol):
    """A model that can be put together: a trained engine, or one that only scores."""

    def full_tensors(self) -> Iterator[tuple[str, Tensor | None]]:
        """Every Hugging Face tensor whole, one at a time: on rank 0 the tensor, elsewhere None."""
        ...


def export(
    engine: Whole | None,
    control: Control,
    folder: Path,
    model_folder: Path,
    dtype: torch.dtype | None = None,
    *,
    writes: bool,
) -> None:
    """Write the policy of `engine` to `folder`, whole or not at all; all ranks call this.

    The ranks that train it pass the engine; the first of them `writes`. config.json and the
    tokenizer are those of `model_folder`. `dtype` is that of the weights when it is to be
    another than the engine's. Raises OSError on that rank when the folder cannot be written.
    """
    tensors = engine.full_tensors() if engine else iter(())
    if writes:
        with refusals_told(folder.parent):
            hf.export(folder, model_folder, tensors if dtype is None else _cast(tensors, dtype))
    else:
        # Each tensor is gathered by all ranks together.
        for _ in tensors:
            pass
    control.barrier("export")


def _cast(
    tensors: Iterator[tuple[str, Tensor | None]], dtype: torch.dtype
) -> Iterator[tuple[str, Tensor | None]]:
    return ((name, None if tensor is None else tensor.to(dtype)) for name, tensor in tensors)
