"""What PEFT says of an adapter in its folder, against what a job says of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from plans.lora import ALL, MODULES, LoraSpec
from plans.source import UserError, read_json

CONFIG = "adapter_config.json"
# What PEFT may do beside plain LoRA, and the value with which it does not.
PLAIN: Mapping[str, tuple[Any, ...]] = {
    "bias": ("none",),
    "fan_in_fan_out": (False, None),
    "use_rslora": (False, None),
    "use_dora": (False, None),
    "modules_to_save": (None, []),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "layers_to_transform": (None, []),
    "exclude_modules": (None, []),
    "layer_replication": (None, []),
    "lora_bias": (False, None),
    "target_parameters": (None, []),
    "trainable_token_indices": (None,),
}


def check_config(folder: Path, lora: LoraSpec) -> None:
    """UserError when an adapter is of another kind than plain LoRA, or of other numbers."""
    path = folder / CONFIG
    if not path.is_file():
        raise UserError(f"no {CONFIG} in '{folder}'; give a folder that PEFT saved an adapter in")
    if wrong := "; ".join(_differences(read_json(path), lora)):
        raise UserError(f"{path}: {wrong}")


def _differences(config: Mapping[str, Any], lora: LoraSpec) -> Iterator[str]:
    if (kind := config.get("peft_type")) != "LORA":
        yield f"peft_type {kind}, only LORA is known here"
    for key, off in PLAIN.items():
        if config.get(key, off[0]) not in off:
            yield f"{key} {config[key]} is not plain LoRA, and not offered here"
    for key, name in (("rank", "r"), ("alpha", "lora_alpha")):
        if config.get(name) != getattr(lora, key):
            yield f"{name} {config.get(name)}, but lora.{key} of the job is {getattr(lora, key):g}"
    targets = config.get("target_modules")
    named = MODULES if targets == ALL else [targets] if isinstance(targets, str) else targets or ()
    # PEFT writes 'all-linear' out, each matrix of each layer by its whole name
    named = {str(name).rpartition(".")[2] for name in named}
    if named != set(lora.target_modules):
        mine = ", ".join(lora.target_modules)
        yield f"target_modules {', '.join(sorted(named))}, but those of the job are {mine}"
