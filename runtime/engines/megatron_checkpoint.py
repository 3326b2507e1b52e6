"""Saving and loading model and optimizer by Megatron's dist_checkpointing, across layouts."""

from __future__ import annotations

import errno
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.strategies.async_utils import AsyncRequest
from megatron.core.dist_checkpointing.strategies.state_dict_saver import (
    save_state_dict_async_finalize,
    save_state_dict_async_plan,
)
from megatron.core.dist_checkpointing.strategies.torch import (
    MCoreSavePlanner,
    TorchDistSaveShardedStrategy,
    _replace_state_dict_keys_with_sharded_keys,
    mcore_to_pyt_state_dict,
)
from megatron.core.optimizer import MegatronOptimizer
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.metadata import MetadataIndex
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner, WriteItem
from torch.distributed.checkpoint.storage import WriteResult

from plans.source import UserError
from runtime.engines.megatron_groups import MegatronGroups
from runtime.engines.megatron_model import CausalModel

FORMAT = ("torch_dist", 1)

CAUSE_LETTERS = 200

# how the C++ writer of torch says that the disk is full, as RuntimeError
TORCH_WRITE_ERRORS = ("inline_container", "iostream")


class Held(DefaultSavePlanner):
    """What torch's writing asks of a planner, when everything was asked for before."""

    def __init__(self, data: Mapping[MetadataIndex, Any]) -> None:
        super().__init__()
        self._data = data

    def resolve_data(self, write_item: WriteItem) -> Any:
        return self._data[write_item.index]


class StagedWriter(FileSystemWriter):
    """torch's writer of one fsynced file a rank, in three parts that may be apart in time.

    What is planned is held, as a copy on the host with `copies`; then it is written, which
    meets no other rank and may happen in a thread; then the results are asked for.
    """

    def __init__(self, folder: Path, *, copies: bool) -> None:
        super().__init__(folder, sync_files=True)
        self._copies = copies
        self._plan: SavePlan | None = None
        self._held: dict[MetadataIndex, Any] = {}
        self._results: list[WriteResult] = []

    def prepare_write_data(self, plan: SavePlan, planner: SavePlanner) -> None:
        """Hold what the plan says this rank writes."""
        self._plan = plan
        for item in plan.items:
            data = planner.resolve_data(item)
            if self._copies and isinstance(data, Tensor):
                data = data.detach().to("cpu", copy=True)
            self._held[item.index] = data

    def write(self) -> None:
        """Write this rank's file."""
        assert self._plan is not None, "planned before it is written"
        self._results = self.write_data(self._plan, Held(self._held)).value()
        self._held = {}

    def retrieve_write_results(self) -> list[WriteResult]:
        return self._results


class InProcessSave(TorchDistSaveShardedStrategy):  # type: ignore[misc]
    """Megatron's checkpoint format, written and fsynced by this process alone.

    Megatron's own writer forks the rank, with its MPI, GPU and thread state, and keeps a
    manager process that imports torch again; here one file a rank is written in place.
    """

    def __init__(self, *, copies: bool) -> None:
        super().__init__(*FORMAT)
        self._copies = copies

    def async_save(self, sharded_state_dict: dict[str, Any], checkpoint_dir: Path) -> AsyncRequest:
        named, _, _ = _replace_state_dict_keys_with_sharded_keys(
            sharded_state_dict, self.keep_only_main_replica
        )
        writer = StagedWriter(checkpoint_dir, copies=self._copies)
        planned, *_ = save_state_dict_async_plan(
            mcore_to_pyt_state_dict(named, False),
            writer,
            planner=MCoreSavePlanner(dedup_replicated_tensors=False, flatten_state_dict=False),
        )
        return AsyncRequest(writer.write, (), [partial(save_state_dict_async_finalize, *planned)])


@dataclass(frozen=True, slots=True, kw_only=True)
class MegatronSaving:
    """A checkpoint on its way to the disk (`Saving` of runtime/engines)."""

    folder: Path
    request: AsyncRequest

    def write(self) -> None:
        try:
            self.request.async_fn()
        except RuntimeError as error:
            raise _write_error(self.folder, error) from error

    def finish(self) -> None:
        try:
            for complete in self.request.finalize_fns:
                complete()
        except (CheckpointException, RuntimeError) as error:
            raise _write_error(self.folder, error) from error


def begin_save(
    folder: Path,
    chunks: Sequence[CausalModel],
    optimizer: MegatronOptimizer,
    groups: MegatronGroups,
    *,
    copies: bool,
) -> MegatronSaving:
    """Plan the writing of model and optimizer into an empty folder; all ranks of the layout.

    With `copies` a copy on the host is written, so that the model may learn on meanwhile.
    Raises OSError when a file cannot be written.
    """
    state = _state(chunks, optimizer, groups, loading=False)
    try:
        with _outdated_calls():
            request = dist_checkpointing.save(
                state,
                str(folder),
                sharded_strategy=InProcessSave(copies=copies),
                async_sharded_save=True,
            )
    except (CheckpointException, RuntimeError) as error:
        raise _write_error(folder, error) from error
    return MegatronSaving(folder=folder, request=request)


def load_state(
    folder: Path,
    chunks: Sequence[CausalModel],
    optimizer: MegatronOptimizer,
    groups: MegatronGroups,
) -> None:
    """Read what `begin_save` began, under any layout.

    Raises UserError when the folder holds no checkpoint, a damaged one, or another model's.
    """
    state = _read(folder, _state(chunks, optimizer, groups, loading=True))
    _fill(chunks, state)
    optimizer.load_state_dict(state["optimizer"])


def load_model(folder: Path, chunks: Sequence[CausalModel], groups: MegatronGroups) -> None:
    """Read the model alone of what `begin_save` began, under any layout; UserError as above."""
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
