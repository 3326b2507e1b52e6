"""What each choice costs by itself, so that a combination is judged by sums.

A training option and a rollout option share ranks: their seconds add, what they hold for
the whole run adds, and of what they hold for a phase only the larger counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from plans.dataflow import phases_of
from plans.layout import ParallelLayout
from plans.memory import (
    GENERATING,
    generate_transient,
    kv_bytes_per_sequence,
    rollout_resident,
    stages_to_check,
    switch_transient,
    train_resident,
    train_transient,
)
from plans.placement import RolloutSettings, TrainSettings
from plans.timeline import generate_cost, reshard_cost, train_phase_cost
from plans.units import GIB, MIB
from plans.workload import Workload

# vLLM's default of max_num_seqs on a GPU of 80 GB and more; beyond it a decoding step is no
# longer bound by the weights, so more sequences at a time gain little.
MOST_CONCURRENT = 256
# Room for the evaluation's longer batches, and for the engine's own profiling run.
LEAST_CACHE_BYTES = 64 * MIB
DURING_ROLLOUT = ("reshard", *GENERATING)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOption:
    """Settings of the trained roles in one layout; bytes are one entry a stage to check."""

    settings: TrainSettings
    seconds: float
    resident_bytes: tuple[int, ...]
    transient_bytes: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutOption:
    """Settings of the rollout beside one training layout; the same bytes on every rank."""

    layout: ParallelLayout
    settings: RolloutSettings
    seconds: float
    resident_bytes: int
    transient_bytes: int


def peak_bytes(train: TrainOption, rollout: RolloutOption) -> int:
    """The fullest rank in the fullest phase when both share their ranks."""
    return rollout.resident_bytes + max(
        resident + max(transient, rollout.transient_bytes)
        for resident, transient in zip(train.resident_bytes, train.transient_bytes, strict=True)
    )


def train_options(workload: Workload, layout: ParallelLayout) -> list[TrainOption]:
    """Every micro-batch and recomputation in this layout."""
    names = [one.name for one in phases_of(workload.job) if one.name not in DURING_ROLLOUT]
    return [
        _train_option(workload, layout, settings, names)
        for settings in _train_settings(workload, layout)
    ]


def rollout_options(
    workload: Workload, train: ParallelLayout, rollout: ParallelLayout
) -> list[RolloutOption]:
    """Every concurrency of the rollout in this layout, the largest first."""
    switch = reshard_cost(workload, train, rollout).seconds
    staging = switch_transient(workload, train, rollout).total
    return [
        RolloutOption(
            layout=rollout,
            settings=settings,
            seconds=switch + generate_cost(workload, rollout, settings).seconds,
            resident_bytes=rollout_resident(workload, train, rollout, settings).total,
            transient_bytes=max(staging, generate_transient(workload, rollout, settings).total),
        )
        for settings in _rollout_settings(workload, rollout)
    ]


def _train_option(
    workload: Workload, layout: ParallelLayout, settings: TrainSettings, names: list[str]
) -> TrainOption:
    stages = stages_to_check(layout)
    return TrainOption(
        settings=settings,
        seconds=sum(train_phase_cost(workload, layout, settings, name).seconds for name in names),
        resident_bytes=tuple(
            train_resident(workload, layout, settings, stage).total for stage in stages
        ),
        transient_bytes=tuple(
            max(train_transient(workload, layout, settings, name, stage).total for name in names)
            for stage in stages
        ),
    )


def _train_settings(workload: Workload, layout: ParallelLayout) -> Iterator[TrainSettings]:
    """Micro-batches that cut a rank's share evenly, each without and with recomputation."""
    fixed = workload.job.batch.micro_samples
    shard = workload.mini_batch // layout.dp
    sizes = [fixed] if fixed else [size for size in range(1, shard + 1) if shard % size == 0]
    for micro_batch in sizes:
        for recompute in ("none", "full"):
            yield TrainSettings(
                micro_batch=min(micro_batch, shard),
                recompute=recompute,
                sequence_parallel=layout.tp > 1 and workload.hardware.platform != "cpu",
            )


def _rollout_settings(workload: Workload, layout: ParallelLayout) -> Iterator[RolloutSettings]:
    """Concurrencies worth trying: all sequences of a replica at once, then halves of it.

    The cache holds `concurrency` sequences of full length and one more, so that none is ever
    pre-empted; what the user fixed is taken as it is.
    """
    asked, tokens = workload.job.roles.actor_rollout, workload.sequence_tokens
    one = kv_bytes_per_sequence(workload, layout.tp)
    count = min(MOST_CONCURRENT, -(-workload.job.batch.sequences // layout.dp))
    if asked.kv_cache_gib:
        room = int(asked.kv_cache_gib * GIB)
        count = asked.concurrency or max(1, min(count, room // one))
        yield RolloutSettings(concurrency=count, kv_cache_bytes=room, max_tokens=tokens)
        return
    count = asked.concurrency or count
    while count:
        room = max(LEAST_CACHE_BYTES, (count + 1) * one)
        yield RolloutSettings(concurrency=count, kv_cache_bytes=room, max_tokens=tokens)
        count = 0 if asked.concurrency else count // 2
