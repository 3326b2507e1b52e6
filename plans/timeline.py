"""Seconds of every phase, and what binds each.

Phases that train or score depend on the training layout and its settings, those that
generate on both layouts and the rollout's settings; the search relies on that split.
"""

from __future__ import annotations

from dataclasses import dataclass

from plans.cost import (
    BACKWARD_PASSES,
    Cost,
    all_reduce_cost,
    copy_cost,
    decode_cost,
    forward_cost,
    message_cost,
    prefill_cost,
)
from plans.dataflow import Role, phases_of
from plans.hardware import MICROSECOND
from plans.layout import ParallelLayout
from plans.memory import (
    GENERATING,
    LEARNING,
    SCORING,
    micro_batches,
    optimizer_bytes,
    rollout_weight_bytes,
    stage_parameters,
)
from plans.placement import RolloutSettings, TrainSettings
from plans.units import GIGA
from plans.workload import Candidate, Workload

# Measured on one core of a cloud machine: text and rule reward of a completion, statistics
# of a batch, and the tensors of a batch that every rank gets from the ranks that made them.
REWARD_SECONDS = 35e-6
ADVANTAGE_SECONDS = 300e-6
SHARED_TENSORS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseTime:
    """A phase, the role that works in it, and its cost."""

    name: str
    role: Role
    cost: Cost


def step_times(workload: Workload, candidate: Candidate) -> tuple[PhaseTime, ...]:
    """The phases of one RL step, in order."""
    return tuple(
        PhaseTime(
            name=phase.name,
            role=phase.role,
            cost=_phase_cost(workload, candidate, phase.name) * phase.passes,
        )
        for phase in phases_of(workload.job)
    )


def outside_times(workload: Workload, candidate: Candidate) -> tuple[PhaseTime, ...]:
    """The pieces of a run that belong to no step; only those that the job has.

    An evaluation is planned as one step's generation: its data are not read to plan.
    """
    job, train, training = workload.job, candidate.train, candidate.training
    actor, rollout = Role.ACTOR_TRAIN, Role.ACTOR_ROLLOUT
    start = Cost(overhead=workload.hardware.start_seconds * workload.slowdown)
    times = [PhaseTime(name="start", role=actor, cost=start)]
    if job.supervised:
        step = learn_cost(workload, train, training, actor, job.supervised.batch)
        times.append(PhaseTime(name="supervised", role=actor, cost=step * job.supervised.steps))
    if job.data.eval:
        cost = reshard_cost(workload, train, candidate.rollout)
        cost += generate_cost(workload, candidate.rollout, candidate.rolling)
        times.append(PhaseTime(name="evaluate", role=rollout, cost=cost))
    saved = checkpoint_cost(workload, train, training)
    return (*times, PhaseTime(name="checkpoint", role=actor, cost=saved))


def train_phase_cost(
    workload: Workload, layout: ParallelLayout, settings: TrainSettings, name: str
) -> Cost:
    """The cost of a phase that learns or scores; of any other, the host's share."""
    batch = workload.job.batch
    if name in SCORING:
        return score_cost(workload, layout, settings)
    if name in LEARNING:
        once = learn_cost(workload, layout, settings, LEARNING[name], workload.mini_batch)
        return once * batch.mini_batches
    if name == "reward":
        return reward_cost(workload, layout, settings)
    return Cost(overhead=ADVANTAGE_SECONDS * workload.slowdown)


def reward_cost(workload: Workload, layout: ParallelLayout, settings: TrainSettings) -> Cost:
    """Each rank rewards the completions of its replica; then all ranks learn of all.

    A reward model reads the batch once.
    """
    world, sequences = workload.world_size, workload.job.batch.sequences
    own = Cost(overhead=REWARD_SECONDS * sequences / world * workload.slowdown)
    tensor = 4 * sequences * workload.sequence_tokens
    known = own + all_reduce_cost(workload, world, world, tensor) * SHARED_TENSORS
    if workload.reward_model is None:
        return known
    return known + score_cost(workload.of(Role.REWARD), layout, settings)


def reshard_cost(workload: Workload, train: ParallelLayout, rollout: ParallelLayout) -> Cost:
    """The switch: the least bytes over the link, and a local copy of what is not shared.

    A rank needs 1/g of the model, g the rollout's tensor degree, and holds 1/(max(t, g) p) of
    it already, since one of the two shards lies inside the other; with g <= t that is
    (t p - g)/(g t p) to receive (HybridFlow, Sheng et al. 2025, table 2).
    """
    shards, g = train.tp * train.pp, rollout.tp
    model_bytes = workload.element_bytes * workload.model.parameter_count
    moved = model_bytes * (1 / g - 1 / (max(train.tp, g) * train.pp))
    copied = max(0.0, rollout_weight_bytes(workload, train, rollout) - moved)
    fixed = Cost(overhead=workload.hardware.switch_microseconds * MICROSECOND * workload.slowdown)
    return fixed + copy_cost(workload, copied) + message_cost(workload, shards, moved)


def generate_cost(workload: Workload, layout: ParallelLayout, rolling: RolloutSettings) -> Cost:
    """All sequences of the batch on their replicas, every response as long as it may be.

    Sequences run in waves of `concurrency`; sharing of prompts between samples is not counted.
    """
    tokens = workload.job.tokens
    rows = -(-workload.job.batch.sequences // layout.dp)
    active = min(rows, rolling.concurrency)
    context = tokens.prompt + tokens.response / 2
    step = decode_cost(workload, layout.tp, active, context)
    prompts = prefill_cost(workload, layout.tp, rows * tokens.prompt, tokens.prompt)
    return step * (tokens.response * rows / active) + prompts


def score_cost(workload: Workload, layout: ParallelLayout, settings: TrainSettings) -> Cost:
    """A forward pass over the batch: its micro-batches, and the filling of the pipeline."""
    tokens = settings.micro_batch * workload.sequence_tokens
    rounds = workload.job.batch.mini_batches * micro_batches(workload, layout, settings)
    slot = forward_cost(workload, layout, tokens) + boundary_cost(workload, layout, tokens)
    return slot * (rounds + layout.pp - 1)


def learn_cost(
    workload: Workload, layout: ParallelLayout, settings: TrainSettings, role: Role, sequences: int
) -> Cost:
    """One optimizer step over `sequences`: forward, backward, reduction of gradients, Adam.

    Backward is two forwards, full recomputation one more. 1F1B runs micro-batches + pp - 1
    slots (Narayanan et al. 2021, 2.2.1).
    """
    shard = max(1, sequences // layout.dp)
    micro_batch = min(shard, settings.micro_batch)
    rounds = -(-shard // micro_batch)
    passes = 1 + BACKWARD_PASSES + (settings.recompute == "full")
    tokens = micro_batch * workload.sequence_tokens
    slot = forward_cost(workload, layout, tokens) * passes
    slot += boundary_cost(workload, layout, tokens) * 2
    return slot * (rounds + layout.pp - 1) + optimizer_cost(workload, layout, settings, role)


def boundary_cost(workload: Workload, layout: ParallelLayout, tokens: int) -> Cost:
    """The activations of a micro-batch on their way to the next pipeline stage."""
    if layout.pp == 1:
        return Cost()
    message = tokens * workload.model.hidden_size * workload.element_bytes
    return message_cost(workload, layout.world_size // layout.pp + 1, message)


def optimizer_cost(
    workload: Workload, layout: ParallelLayout, settings: TrainSettings, role: Role
) -> Cost:
    """Gradients summed over the replicas in fp32, then Adam's states read and written once."""
    parameters = stage_parameters(workload.model, layout, 0, role)
    reduced = all_reduce_cost(workload, layout.dp, layout.tp * layout.dp, 4 * parameters)
    states = optimizer_bytes(workload, parameters, layout, settings)
    return reduced + copy_cost(workload, states + 4 * parameters)


def checkpoint_cost(workload: Workload, layout: ParallelLayout, settings: TrainSettings) -> Cost:
    """Weights (written by one replica) and optimizer states; a node's ranks share its disk."""
    states = 0.0
    for role in [Role.ACTOR_TRAIN] + [Role.CRITIC] * workload.job.needs_critic:
        parameters = stage_parameters(workload.model, layout, 0, role)
        states += workload.element_bytes * parameters / layout.dp
        states += optimizer_bytes(workload, parameters, layout, settings)
    disk = workload.hardware.disk_gb_per_second * GIGA
    return Cost(memory=states * workload.ranks_per_node / disk)


def _phase_cost(workload: Workload, candidate: Candidate, name: str) -> Cost:
    if name == "reshard":
        return reshard_cost(workload, candidate.train, candidate.rollout)
    if name in GENERATING:
        return generate_cost(workload, candidate.rollout, candidate.rolling)
    return train_phase_cost(workload, candidate.train, candidate.training, name)
