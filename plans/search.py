"""Plan a job: enumerate the legal layouts, keep what fits in memory, rank by seconds a step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt

from plans.dataflow import Role, roles_of
from plans.hardware import HardwareSpec
from plans.layout import ParallelLayout
from plans.legality import Rejection, divisors, rollout_degrees, train_layouts
from plans.memory import MemoryUse, kv_bytes_per_sequence, memory_use
from plans.model import ModelSpec
from plans.placement import Placement, ResourcePool, RolloutSettings, TrainSettings
from plans.plan import FORMAT, PhasePlan, Plan
from plans.reshard import rollout_layout, summarize
from plans.source import PlanError
from plans.spec import JobSpec
from plans.timeline import PhaseTime, outside_times, step_times
from plans.units import GIB, HOUR, MIB
from plans.workload import Candidate, Workload

MOST_CONCURRENT = 256
LEAST_CACHE_BYTES = 64 * MIB
MOST_NODES_TRIED = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """A candidate that is legal and fits, with the two numbers it is judged by."""

    candidate: Candidate
    step_seconds: float
    peak_bytes: int

    @property
    def order(self) -> tuple[float | int, ...]:
        """Fastest first; then fewer stages, smaller degrees, less memory, so that ties are settled."""
        train, settings = self.candidate.train, self.candidate.training
        return (
            round(self.step_seconds, 9),
            train.pp,
            train.tp,
            self.candidate.rollout.tp,
            self.peak_bytes,
            settings.micro_batch,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What a search found: the candidates in order, the best first, and why the rest fell out."""

    workload: Workload
    ranked: tuple[Ranked, ...]
    rejections: tuple[Rejection, ...]

    @property
    def best(self) -> Ranked:
        return self.ranked[0]

    @property
    def next_best(self) -> Ranked | None:
        """The best candidate with another layout than the winner's."""
        names = str(self.best.candidate)
        return next((one for one in self.ranked if str(one.candidate) != names), None)


def make_plan(job: JobSpec, model: ModelSpec, hardware: HardwareSpec) -> Plan:
    """The fastest plan under the cost model; PlanError with the reason when there is none."""
    found = search(job, model, hardware)
    return plan_of(found.workload, found.best.candidate)


def search(job: JobSpec, model: ModelSpec, hardware: HardwareSpec) -> Search:
    """Every candidate of a job, judged; PlanError when none is legal or none fits."""
    workload = Workload(job=job, model=model, hardware=hardware)
    workload.check_cluster()
    ranked, rejected, smallest = _judge(workload)
    if not ranked:
        raise _no_plan(workload, rejected, smallest)
    return Search(
        workload=workload,
        ranked=tuple(sorted(ranked, key=lambda one: one.order)),
        rejections=tuple(rejected),
    )


def plan_of(workload: Workload, candidate: Candidate) -> Plan:
    """The frozen plan of a candidate."""
    outside = outside_times(workload, candidate)
    steps = step_times(workload, candidate)
    return Plan(
        format=FORMAT,
        job=workload.job,
        model=workload.model,
        hardware=workload.hardware.name,
        precision=workload.precision,
        ranks_per_node=workload.ranks_per_node,
        pools=candidate.pools,
        placements=candidate.placements,
        phases=tuple(_phase_plan(workload, candidate, time) for time in steps),
        outside=tuple(_phase_plan(workload, candidate, time) for time in outside),
        reshard=summarize(
            workload.model, candidate.train, candidate.rollout, workload.element_bytes
        ),
        checkpoint_every=checkpoint_interval(workload, steps, outside),
    )


def checkpoint_interval(
    workload: Workload, steps: tuple[PhaseTime, ...], outside: tuple[PhaseTime, ...]
) -> int:
    """Steps between checkpoints: what the user fixed, or the interval that loses least time.

    sqrt(2 C M) seconds, C the cost of one checkpoint and M the mean time between failures of
    the whole job (Young 1974; Daly 2006, first order), at least one step and at most the run.
    """
    job = workload.job
    if job.checkpoint.every:
        return job.checkpoint.every
    cost = next(time.cost.seconds for time in outside if time.name == "checkpoint")
    between_failures = workload.hardware.node_failure_hours * HOUR / job.cluster.nodes
    step = sum(time.cost.seconds for time in steps)
    return max(1, min(job.steps, int(sqrt(2 * cost * between_failures) / step)))


def _judge(
    workload: Workload,
) -> tuple[list[Ranked], list[Rejection], tuple[Candidate, MemoryUse] | None]:
    """Fitting candidates, rejections, and the smallest of those that do not fit."""
    layouts, no_train = train_layouts(workload)
    degrees, no_rollout = rollout_degrees(workload)
    ranked: list[Ranked] = []
    rejected = [*no_train, *no_rollout]
    smallest: tuple[Candidate, MemoryUse] | None = None
    for train in layouts:
        for candidate in _candidates(workload, train, degrees):
            peak = peak_use(workload, candidate)
            if peak.total <= workload.hardware.memory_bytes:
                ranked.append(_rank(workload, candidate, peak))
                continue
            rejected.append(_too_large(workload, candidate, peak))
            if smallest is None or peak.total < smallest[1].total:
                smallest = (candidate, peak)
    return ranked, rejected, smallest


def peak_use(workload: Workload, candidate: Candidate) -> MemoryUse:
    """The account of the fullest rank in the phase that needs most."""
    names = [time.name for time in step_times(workload, candidate)]
    return max((memory_use(workload, candidate, name) for name in names), key=lambda use: use.total)


def _rank(workload: Workload, candidate: Candidate, peak: MemoryUse) -> Ranked:
    seconds = sum(time.cost.seconds for time in step_times(workload, candidate))
    return Ranked(candidate=candidate, step_seconds=seconds, peak_bytes=peak.total)


def _candidates(
    workload: Workload, train: ParallelLayout, degrees: list[int]
) -> Iterator[Candidate]:
    for tp in degrees:
        rollout = rollout_layout(train, tp)
        for settings in _train_settings(workload, train):
            for rolling in _rollout_settings(workload, rollout):
                yield _candidate(workload, train, rollout, settings, rolling)


def _train_settings(workload: Workload, layout: ParallelLayout) -> Iterator[TrainSettings]:
    batch = workload.job.batch
    shard = batch.sequences // batch.mini_batches // layout.dp
    sizes = [batch.micro_samples] if batch.micro_samples else divisors(shard)
    for micro_batch in sizes:
        for recompute in ("none", "full"):
            yield TrainSettings(
                micro_batch=min(micro_batch, shard),
                recompute=recompute,
                sequence_parallel=layout.tp > 1 and workload.hardware.platform != "cpu",
            )


def _rollout_settings(workload: Workload, layout: ParallelLayout) -> Iterator[RolloutSettings]:
    """Concurrencies worth trying: all sequences of a replica at once, then halves of it.

    The cache holds `concurrency` sequences of full length, so none is ever pre-empted.
    """
    asked, tokens = workload.job.roles.actor_rollout, workload.sequence_tokens
    one = kv_bytes_per_sequence(workload, layout.tp)
    rows = min(MOST_CONCURRENT, -(-workload.job.batch.sequences // layout.dp))
    if asked.kv_cache_gib:
        room = int(asked.kv_cache_gib * GIB)
        count = asked.concurrency or max(1, min(rows, room // one))
        yield RolloutSettings(concurrency=count, kv_cache_bytes=room, max_tokens=tokens)
        return
    count = asked.concurrency or rows
    while count:
        room = max(LEAST_CACHE_BYTES, (count + 1) * one)
        yield RolloutSettings(concurrency=count, kv_cache_bytes=room, max_tokens=tokens)
        count = 0 if asked.concurrency else count // 2


def _candidate(
    workload: Workload,
    train: ParallelLayout,
    rollout: ParallelLayout,
    settings: TrainSettings,
    rolling: RolloutSettings,
) -> Candidate:
    """All roles on one pool of all ranks; the scored roles share the actor's training layout."""
    pool = ResourcePool(name="all", first_rank=0, rank_count=workload.world_size)
    placements = [
        Placement(role=role, pool=pool.name, layout=rollout, rollout=rolling)
        if role == Role.ACTOR_ROLLOUT
        else Placement(role=role, pool=pool.name, layout=train, train=settings)
        for role in roles_of(workload.job)
    ]
    return Candidate(pools=(pool,), placements=tuple(placements))


def _phase_plan(workload: Workload, candidate: Candidate, time: PhaseTime) -> PhasePlan:
    """A phase with its deadline: a multiple of the plan, and never below a floor.

    The factor covers what the cost model does not know (first-step compilation, a slow
    disk, a busy machine); the floor covers phases planned in milliseconds.
    """
    hardware, seconds = workload.hardware, time.cost.seconds
    deadline = max(hardware.deadline_factor * seconds, hardware.deadline_floor_seconds)
    return PhasePlan(
        name=time.name,
        role=time.role,
        seconds=float(f"{seconds:.6g}"),
        deadline_seconds=float(f"{deadline:.6g}"),
        peak_bytes=memory_use(workload, candidate, time.name).total,
    )


def _too_large(workload: Workload, candidate: Candidate, peak: MemoryUse) -> Rejection:
    capacity = workload.hardware.memory_gib
    return Rejection(
        what=f"{candidate}, micro-batch {candidate.training.micro_batch}",
        reason=f"needs {peak.total / GIB:.3g} GiB of {capacity:.3g}",
    )


def _no_plan(
    workload: Workload,
    rejected: list[Rejection],
    smallest: tuple[Candidate, MemoryUse] | None,
) -> PlanError:
    if smallest is None:
        reasons = dict.fromkeys(f"{one.what}: {one.reason}" for one in rejected)
        return PlanError("no layout is legal:\n" + "\n".join(f"  {line}" for line in reasons))
    candidate, peak = smallest
    hardware = workload.hardware
    need = f"{peak.total / GIB:.3g} GiB per {hardware.device}"
    nodes = _nodes_that_fit(workload)
    remedy = f"; try nodes: {nodes}" if nodes else ""
    return PlanError(
        f"no layout fits: the best ({candidate}) needs {need}, "
        f"{hardware.name} has {hardware.memory_gib:.3g}{remedy}"
    )


def _nodes_that_fit(workload: Workload) -> int:
    """The smallest doubling of the nodes with which some layout fits; 0 when none does."""
    cluster = workload.job.cluster
    factor = 2
    while cluster.nodes * factor <= MOST_NODES_TRIED:
        ranks = cluster.ranks * factor if cluster.ranks else None
        more = cluster.model_copy(update={"nodes": cluster.nodes * factor, "ranks": ranks})
        job = workload.job.model_copy(update={"cluster": more})
        if _judge(Workload(job=job, model=workload.model, hardware=workload.hardware))[0]:
            return more.nodes
        factor *= 2
    return 0
