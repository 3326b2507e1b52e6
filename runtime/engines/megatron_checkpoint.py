"""Saving and loading model and optimizer by Megatron's dist_checkpointing, across layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from megatron.core import dist_checkpointing
from megatron.core.optimizer import MegatronOptimizer

from plans.source import UserError
from runtime.engines.megatron_groups import MegatronGroups
from runtime.engines.megatron_model import CausalModel


def save_state(
    folder: Path, network: CausalModel, optimizer: MegatronOptimizer, groups: MegatronGroups
) -> None:
    """Write model and optimizer into an empty folder; all ranks of the layout take part."""
    dist_checkpointing.save(_state(network, optimizer, groups, loading=False), str(folder))


def load_state(
    folder: Path, network: CausalModel, optimizer: MegatronOptimizer, groups: MegatronGroups
) -> None:
    """Read what `save_state` wrote under any layout; UserError when the folder is no checkpoint."""
    if not (folder / ".metadata").exists():
        raise UserError(f"{folder}: no checkpoint of a model here (.metadata is missing)")
    state = dist_checkpointing.load(_state(network, optimizer, groups, loading=True), str(folder))
    network.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])


def _state(
    network: CausalModel, optimizer: MegatronOptimizer, groups: MegatronGroups, loading: bool
) -> dict[str, Any]:
    # fully_reshardable is the one kind of 0.16.1 that another tp or pp can read
    metadata = {
        "dp_cp_group": groups.collection.dp_cp,
        "distrib_optim_sharding_type": "fully_reshardable",
        "distrib_optim_fully_reshardable_mem_efficient": False,
    }
    model = network.sharded_state_dict(metadata=metadata)
    return {
        "model": model,
        "optimizer": optimizer.sharded_state_dict(model, is_loading=loading, metadata=metadata),
    }
