"""Saving and loading model and optimizer by Megatron's dist_checkpointing, across layouts."""

from __future__ import annotations

import errno
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.strategies.torch import (
    MCoreSavePlanner,
    TorchDistSaveShardedStrategy,
    _replace_state_dict_keys_with_sharded_keys,
    mcore_to_pyt_state_dict,
)
from megatron.core.optimizer import MegatronOptimizer
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.state_dict_saver import save as save_tensors

from plans.source import UserError
from runtime.engines.megatron_groups import MegatronGroups
from runtime.engines.megatron_model import CausalModel

FORMAT = ("torch_dist", 1)

CAUSE_LETTERS = 200

# how the C++ writer of torch says that the disk is full, as RuntimeError
TORCH_WRITE_ERRORS = ("inline_container", "iostream")


class InProcessSave(TorchDistSaveShardedStrategy):  # type: ignore[misc]
    """Megatron's checkpoint format, written and fsynced by this process alone.

    Megatron's own writer forks the rank, with its MPI, GPU and thread state, and keeps a
    manager process that imports torch again; here one file a rank is written in place.
    """

    def save(self, sharded_state_dict: dict[str, Any], checkpoint_dir: Path) -> None:
        named, _, _ = _replace_state_dict_keys_with_sharded_keys(
            sharded_state_dict, self.keep_only_main_replica
        )
        save_tensors(
            mcore_to_pyt_state_dict(named, False),
            storage_writer=FileSystemWriter(checkpoint_dir, sync_files=True),
            planner=MCoreSavePlanner(dedup_replicated_tensors=False, flatten_state_dict=False),
        )


def save_state(
    folder: Path,
    chunks: Sequence[CausalModel],
    optimizer: MegatronOptimizer,
    groups: MegatronGroups,
) -> None:
    """Write model and optimizer into an empty folder; all ranks of the layout take part.

    Raises OSError when a file cannot be written.
    """
    state = _state(chunks, optimizer, groups, loading=False)
    try:
        with _outdated_calls():
            dist_checkpointing.save(state, str(folder), sharded_strategy=InProcessSave(*FORMAT))
    except (CheckpointException, RuntimeError) as error:
        raise _write_error(folder, error) from error


def load_state(
    folder: Path,
    chunks: Sequence[CausalModel],
    optimizer: MegatronOptimizer,
    groups: MegatronGroups,
) -> None:
    """Read what `save_state` wrote, under any layout.

    Raises UserError when the folder holds no checkpoint, a damaged one, or another model's.
    """
    state = _read(folder, _state(chunks, optimizer, groups, loading=True))
    _fill(chunks, state)
    optimizer.load_state_dict(state["optimizer"])


def load_model(folder: Path, chunks: Sequence[CausalModel], groups: MegatronGroups) -> None:
    """Read the model alone of what `save_state` wrote, under any layout; UserError as above."""
    _fill(chunks, _read(folder, _model_state(chunks, _metadata(groups))))


def _read(folder: Path, empty: dict[str, Any]) -> dict[str, Any]:
    if not (folder / ".metadata").exists():
        raise UserError(f"{folder}: no checkpoint of a model here (.metadata is missing)")
    try:
        with _outdated_calls():
            state: dict[str, Any] = dist_checkpointing.load(empty, str(folder))
    except CheckpointException as error:
        raise UserError(
            f"{folder}: the checkpoint is damaged or of another model: {_brief(error)}"
        ) from None
    return state


def _fill(chunks: Sequence[CausalModel], state: dict[str, Any]) -> None:
    for turn, chunk in enumerate(chunks):
        chunk.load_state_dict(state[f"model{turn}"])


def _metadata(groups: MegatronGroups) -> dict[str, Any]:
    # fully_reshardable is the one kind of 0.16.1 that another tp or pp can read
    return {
        "dp_cp_group": groups.collection.dp_cp,
        "distrib_optim_sharding_type": "fully_reshardable",
        "distrib_optim_fully_reshardable_mem_efficient": False,
    }


def _state(
    chunks: Sequence[CausalModel],
    optimizer: MegatronOptimizer,
    groups: MegatronGroups,
    loading: bool,
) -> dict[str, Any]:
    metadata = _metadata(groups)
    model = _model_state(chunks, metadata)
    return {
        **model,
        "optimizer": optimizer.sharded_state_dict(model, is_loading=loading, metadata=metadata),
    }


def _model_state(chunks: Sequence[CausalModel], metadata: dict[str, Any]) -> dict[str, Any]:
    # names in the file come from the tensors' own keys: the same whatever the number of chunks
    return {
        f"model{turn}": chunk.sharded_state_dict(metadata=metadata)
        for turn, chunk in enumerate(chunks)
    }


@contextmanager
def _outdated_calls() -> Iterator[None]:
    """While it lasts, no word about old names that Megatron-core and torch itself still use."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _write_error(folder: Path, error: BaseException) -> Exception:
    """What to raise in place of an error of torch's writers."""
    cause = _first_cause(error)
    if isinstance(cause, OSError) or any(word in str(cause) for word in TORCH_WRITE_ERRORS):
        return OSError(
            errno.EIO, f"cannot write the checkpoint, is the disk full? ({cause})", str(folder)
        )
    return RuntimeError(f"{folder}: saving failed: {cause}")


def _first_cause(error: BaseException) -> BaseException:
    """The error of one rank; CheckpointException itself is no Exception and has all ranks' text."""
    if isinstance(error, CheckpointException):
        return next(iter(error.failures.values()))[0]
    return error


def _brief(error: BaseException) -> str:
    """The start of the cause; Megatron lists every name of a checkpoint it cannot match."""
    return str(_first_cause(error)).split("\n")[0][:CAUSE_LETTERS]
