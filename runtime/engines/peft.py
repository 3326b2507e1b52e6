"""Adapters as PEFT writes them: read, drawn from a seed, written, and merged into full weights.

Tensors go by their Hugging Face names with `lora_A` or `lora_B` before `weight`; in a file PEFT
puts PREFIX before them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from math import sqrt
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from plans.adapters import A, adapter_tensors, half, module_of
from plans.lora import MODULES, LoraSpec
from plans.model import ModelSpec
from plans.peft import CONFIG, check_config
from plans.source import UserError
from runtime.engines.hf import FolderWeights, tensor_files, tensor_shapes
from runtime.files import discard_folder, make_folder, move_folder, sync, temporary_of, write_json

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."


class DrawnAdapter(Mapping[str, Tensor]):
    """Adapters that change nothing yet: B is zero and A uniform in +-1 / sqrt(columns).

    PEFT's own start, Kaiming with a = sqrt(5). A tensor depends on the seed and its name alone,
    so every rank of every layout draws the same.
    """

    def __init__(self, model: ModelSpec, lora: LoraSpec, seed: int) -> None:
        self.shapes = {tensor.name: tensor.shape for tensor in adapter_tensors(model, lora)}
        self.seed = seed

    def __getitem__(self, name: str) -> Tensor:
        shape = self.shapes[name]
        if f".{A}." not in name:
            return torch.zeros(shape)
        digest = hashlib.sha256(f"{self.seed} {name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))
        bound = 1 / sqrt(shape[1])
        return torch.empty(shape).uniform_(-bound, bound, generator=generator)

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


class MergedWeights(Mapping[str, Tensor]):
    """Full weights with adapters added to them, a tensor at a time; the adapters' own as well.

    W + scale B A, computed in float32 and given in the precision of W, as PEFT merges.
    """

    def __init__(
        self, weights: Mapping[str, Tensor], adapter: Mapping[str, Tensor], scale: float
    ) -> None:
        self.weights, self.adapter, self.scale = weights, adapter, scale

    def __getitem__(self, name: str) -> Tensor:
        if name in self.adapter:
            return self.adapter[name]
        return merged(name, self.weights[name], self.adapter, self.scale)

    def __iter__(self) -> Iterator[str]:
        return iter(self.weights)

    def __len__(self) -> int:
        return len(self.weights)


@torch.no_grad()
def merged(name: str, weight: Tensor, adapter: Mapping[str, Tensor], scale: float) -> Tensor:
    """A weight with its adapter added; the weight itself where it has none."""
    down = adapter.get(half(name, "lora_A")) if module_of(name) in MODULES else None
    if down is None:
        return weight
    up = adapter[half(name, "lora_B")]
    delta = up.to(weight.device, torch.float32) @ down.to(weight.device, torch.float32)
    return (weight.float() + scale * delta).to(weight.dtype)


def read_adapter(folder: Path, model: ModelSpec, lora: LoraSpec) -> dict[str, Tensor]:
    """The adapters in a folder of PEFT, in float32, checked against the model and the job.

    Raises UserError naming the folder or file, what is wrong, and the remedy.
    """
    check_config(folder, lora)
    path = folder / WEIGHTS
    if not path.is_file():
        raise UserError(f"{folder}: no {WEIGHTS}; save the adapter with safetensors")
    weights = FolderWeights(folder, tensor_files(path))
    found = tensor_shapes(weights.files)
    wanted = {PREFIX + tensor.name: tensor.shape for tensor in adapter_tensors(model, lora)}
    if strange := sorted(found.keys() ^ wanted.keys()):
        what = "missing" if strange[0] in wanted else "of no targeted matrix of this model"
        raise UserError(f"{path}: {strange[0]}: {what} ({len(strange)} such names)")
    for name, shape in wanted.items():
        if found[name] != shape:
            raise UserError(
                f"{path}: {name} has shape {list(found[name])}, rank and model say {list(shape)}"
            )
    return {name.removeprefix(PREFIX): weights[name].float() for name in wanted}


def write_adapter(
    folder: Path, base: str, lora: LoraSpec, tensors: Iterable[tuple[str, Tensor | None]]
) -> None:
    """Write a folder that `peft.PeftModel.from_pretrained` loads onto the model in `base`.

    Written to `<folder>.tmp` and renamed, as `hf.export` does; `tensors` are whole.
    """
    draft = temporary_of(folder)
    discard_folder(draft)
    make_folder(draft)
    held = {PREFIX + name: _for_file(tensor) for name, tensor in tensors}
    save_file(held, draft / WEIGHTS, metadata={"format": "pt"})
    write_json(draft / CONFIG, _config(base, lora))
    for path in (*draft.iterdir(), draft):
        sync(path)
    move_folder(draft, folder)


def _for_file(tensor: Tensor | None) -> Tensor:
    assert tensor is not None, "only rank 0 has the tensors to write"
    return tensor.detach().cpu().contiguous()


def _config(base: str, lora: LoraSpec) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": 0.0,
        "target_modules": list(lora.target_modules),
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
        "inference_mode": True,
    }
