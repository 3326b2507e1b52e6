"""The policy of a run as weights: what it starts from, and where a checkpoint says it stands."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from plans.dataflow import Role
from plans.placement import TrainSettings
from plans.plan import Plan
from runtime.engines.hf import random_weights, read_weights
from runtime.engines.megatron import MegatronScorer
from runtime.engines.megatron_lora import Adapted
from runtime.engines.peft import DrawnAdapter, MergedWeights, read_adapter

if TYPE_CHECKING:  # Megatron-core is imported by its engine, after what it wants set up
    from runtime.engines.megatron_groups import MegatronGroups


def initial_weights(plan: Plan, model_folder: Path) -> Mapping[str, Tensor]:
    """The weights the run starts from: the model folder's, or drawn from the job's seed."""
    if plan.job.model.weights == "random":
        return random_weights(plan.model, plan.job.seed)
    return read_weights(model_folder, plan.model)


def warm_weights(plan: Plan, folder: Path, model_folder: Path) -> Mapping[str, Tensor]:
    """The weights after a warm-up that left `folder`: a whole model, or adapters over the first."""
    if plan.job.lora is None:
        return read_weights(folder, plan.model)
    adapter = read_adapter(folder, plan.model, plan.job.lora)
    base = initial_weights(plan, model_folder)
    return MergedWeights(base, adapter, plan.job.lora.scale)


def start_adapter(plan: Plan, base: Path) -> Mapping[str, Tensor]:
    """The adapters the run starts from: a folder's, or drawn from the job's seed; none without."""
    lora = plan.job.lora
    if lora is None:
        return {}
    if lora.adapter is None:
        return DrawnAdapter(plan.model, lora, plan.job.seed)
    return read_adapter(base / lora.adapter, plan.model, lora)


def standing_policy(
    plan: Plan,
    model_folder: Path,
    groups: MegatronGroups,
    settings: TrainSettings,
    checkpoint: Path | None,
    start: Mapping[str, Tensor] | None = None,
) -> MegatronScorer:
    """The policy in a checkpoint, or else at the start, where `start` are its adapters.

    A checkpoint of adapters is read beside the weights that they were trained for.
    """
    common: dict[str, Any] = {
        "model": plan.model,
        "groups": groups,
        "settings": settings,
        "precision": plan.precision,
    }
    whole = plan.job.lora is None and checkpoint is not None
    weights = None if whole else initial_weights(plan, model_folder)
    policy = (
        Adapted(lora=plan.job.lora, adapter=start, weights=weights, **common)
        if plan.job.lora
        else MegatronScorer(weights=weights, **common)
    )
    if checkpoint:
        policy.load_model(checkpoint / Role.ACTOR_TRAIN)
    return policy
