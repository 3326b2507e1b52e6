"""Run under mpirun: measures engines with adapters on one world size, case after case.

lora_worker.py FOLDER CASE... ; a case is 'name family tp,dp,pp'. Rank 0 writes
FOLDER/results.json: what every rank measured, by case and in rank order.
"""

from __future__ import annotations

from typing import Any

import megatron_world as world
import torch

from plans.lora import LoraSpec
from runtime.engines.megatron_lora import AdapterEngine

SPEC = LoraSpec.model_validate({"rank": 4, "alpha": 8})
SOME = LoraSpec.model_validate(
    {"rank": 2, "alpha": 6, "target_modules": ["q_proj", "v_proj", "down_proj"]}
)


def adapted(reference: Any, spec: LoraSpec, seed: int = 7) -> Any:
    """The reference model with PEFT's adapters, both matrices far from zero."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        target_modules=list(spec.target_modules),
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(reference, config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, one in model.named_parameters():
            if "lora_" in name:
                one.copy_(torch.randn(one.shape, generator=generator) * 0.05)
    return model


def whole_adapter(model: Any) -> dict[str, torch.Tensor]:
    """PEFT's adapters under the names that the engines use."""
    return {
        name.removeprefix("base_model.model.").replace(".default", ""): one.detach().clone()
        for name, one in model.named_parameters()
        if "lora_" in name
    }


def engine(
    reference: Any, groups: Any, spec: LoraSpec, adapter: Any, **changes: Any
) -> AdapterEngine:
    return AdapterEngine(
        lora=spec,
        adapter=adapter,
        **{**world._settings(reference, groups), "optimizer": world.ADAMW, **changes},
    )
