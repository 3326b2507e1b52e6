"""export/: the trained policy as a Hugging Face folder; adapter/: its adapters as PEFT has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from plans.lora import LoraSpec
from runtime.control import Control
from runtime.engines import hf, peft
from runtime.engines.megatron_lora import AdapterEngine
from runtime.files import refusals_told

Tensors = Iterator[tuple[str, Tensor | None]]


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

    def write(tensors: Tensors) -> None:
        hf.export(folder, model_folder, tensors if dtype is None else _cast(tensors, dtype))

    _together(write if writes else None, tensors, control, folder)


def export_adapter(
    engine: AdapterEngine | None,
    control: Control,
    folder: Path,
    model_folder: Path,
    lora: LoraSpec,
    *,
    writes: bool,
) -> None:
    """Write the adapters of `engine` to `folder` as PEFT does; all else as in `export`."""
    tensors = engine.adapter_tensors() if engine else iter(())

    def write(tensors: Tensors) -> None:
        peft.write_adapter(folder, str(model_folder), lora, tensors)

    _together(write if writes else None, tensors, control, folder)


def _together(
    write: Callable[[Tensors], None] | None, tensors: Tensors, control: Control, folder: Path
) -> None:
    """Let the one rank write what all of them gather."""
    if write:
        with refusals_told(folder.parent):
            write(tensors)
    else:
        # Each tensor is gathered by all ranks together.
        for _ in tensors:
            pass
    control.barrier("export")


def _cast(tensors: Tensors, dtype: torch.dtype) -> Tensors:
    return ((name, None if tensor is None else tensor.to(dtype)) for name, tensor in tensors)
