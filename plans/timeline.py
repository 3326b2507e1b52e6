"""Seconds of every phase of a candidate, and what binds each."""

from __future__ import annotations

from dataclasses import dataclass

from plans.cost import (
    BACKWARD_PASSES,
    RECOMPUTE_PASSES,
    Cost,
    all_reduce_cost,
    decode_step_cost,
    forward_stage_cost,
    link_between,
    prefill_cost,
)
from plans.dataflow import Role, phases_of
from plans.memory import micro_batches, optimizer_bytes, rollout_weight_bytes, stage_parameters
from plans.workload import Candidate, Workload

# Bookkeeping on the host: the reward rule, packing and group statistics of one sequence,
# measured with the rule rewards on one core of a cloud Xeon.
HOST_SECONDS_PER_SEQUENCE = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseTime:
    """A phase, the role that works in it, and its cost."""

    name: str
    role: Role
    cost: Cost


def step_times(workload: Workload, candidate: Candidate) -> tuple[PhaseTime, ...]:
    """The phases of one RL step in order."""
    return tuple(
        PhaseTime(
            name=phase.name,
            role=phase.role,
            cost=phase_cost(workload, candidate, phase.name).times(phase.passes),
        )
        for phase in phases_of(workload.job)
    )


def outside_times(workload: Workload, candidate: Candidate) -> tuple[PhaseTime, ...]:
    """The pieces of a run that belong to no step; only those the job has."""
    job, actor = workload.job, Role.ACTOR_TRAIN
    start = Cost(overhead=workload.hardware.start_seconds * workload.slowdown)
    times = [PhaseTime(name="start", role=actor, cost=start)]
    if job.supervised:
        step = update_cost(workload, candidate, actor, job.supervised.batch, 1)
        times.append(
            PhaseTime(name="supervised", role=actor, cost=step.times(job.supervised.steps))
        )
    if job.data.eval:
        role, cost = Role.ACTOR_ROLLOUT, generate_cost(workload, candidate)
        times.append(PhaseTime(name="evaluate", role=role, cost=cost))
    saved = checkpoint_cost(workload, candidate)
    return (*times, PhaseTime(name="checkpoint", role=actor, cost=saved))


def phase_cost(workload: Workload, candidate: Candidate, name: str) -> Cost:
    """The cost of one phase of the step by its name."""
    batch = workload.job.batch
    match name:
        case "reshard":
            return reshard_cost(workload, candidate)
        case "gen":
            return generate_cost(workload, candidate)
        case "old_log_prob" | "ref" | "values":
            return score_cost(workload, candidate)
        case "update_actor":
            return update_cost(
                workload, candidate, Role.ACTOR_TRAIN, batch.sequences, batch.mini_batches
            )
        case "update_critic":
            return update_cost(
                workload, candidate, Role.CRITIC, batch.sequences, batch.mini_batches
            )
    return Cost(overhead=HOST_SECONDS_PER_SEQUENCE * batch.sequences)


def reshard_cost(workload: Workload, candidate: Candidate) -> Cost:
    """The switch: the bound on received bytes over the link, and one local copy of the rest.

    Received per rank is (t p - g)/(g t p) of the model, g the rollout's tensor degree, when
    each training shard lies inside the rollout shard of its rank (HybridFlow, Sheng et al.
    2025, table 2).
    """
    train, g = candidate.train, candidate.rollout.tp
    shards = train.tp * train.pp
    model_bytes = workload.element_bytes * workload.model.parameter_count
    moved = model_bytes * max(0, shards - g) / (g * shards)
    copied = rollout_weight_bytes(workload, candidate, 0) - moved
    rate = workload.hardware.memory_bytes_per_second / workload.slowdown
    network = Cost()
    if moved:
        link = link_between(workload, shards)
        seconds = link.latency_seconds + moved / link.bytes_per_second
        network = Cost(network=seconds * workload.slowdown)
    return Cost(memory=2 * max(0.0, copied) / rate) + network


def generate_cost(workload: Workload, candidate: Candidate) -> Cost:
    """All sequences of the batch on their replicas, every response as long as it may be.

    Sequences run in waves of `concurrency`; prefix sharing between samples is not counted.
    """
    tokens, rolling, layout = workload.job.tokens, candidate.rolling, candidate.rollout
    rows = -(-workload.job.batch.sequences // layout.dp)
    waves = rows / min(rows, rolling.concurrency)
    context = tokens.prompt + tokens.response / 2
    active = min(rows, rolling.concurrency)
    step = decode_step_cost(workload, layout.tp, active, context)
    decode = step.times(tokens.response * waves)
    return decode + prefill_cost(workload, layout.tp, rows * tokens.prompt, tokens.prompt)


def score_cost(workload: Workload, candidate: Candidate) -> Cost:
    """A forward pass over the batch: micro-batches and the filling of the pipeline."""
    tokens = candidate.training.micro_batch * workload.sequence_tokens
    rounds = workload.job.batch.mini_batches * micro_batches(workload, candidate)
    stage = forward_stage_cost(workload, candidate, tokens)
    return stage.times(rounds + candidate.train.pp - 1)


def update_cost(
    workload: Workload, candidate: Candidate, role: Role, sequences: int, mini_batches: int
) -> Cost:
    """`mini_batches` optimizer steps over `sequences`: forward, backward, reduction, Adam.

    Backward is two forwards, full recomputation one more; 1F1B runs micro-batches + pp - 1
    slots (Narayanan et al. 2021, 2.2.1).
    """
    layout, settings = candidate.train, candidate.training
    shard = max(1, sequences // mini_batches // layout.dp)
    rounds = max(1, -(-shard // settings.micro_batch))
    tokens = min(shard, settings.micro_batch) * workload.sequence_tokens
    passes = 1 + BACKWARD_PASSES + (RECOMPUTE_PASSES if settings.recompute == "full" else 0)
    stage = forward_stage_cost(workload, candidate, tokens).times(passes)
    learn = stage.times(rounds + layout.pp - 1) + optimizer_step_cost(workload, candidate, role)
    return learn.times(mini_batches)


def optimizer_step_cost(workload: Workload, candidate: Candidate, role: Role) -> Cost:
    """Gradients summed over the replicas in fp32, then Adam's states read and written once."""
    layout = candidate.train
    parameters = stage_parameters(workload.model, layout, 0, role)
    span = layout.tp * layout.dp
    reduce = all_reduce_cost(workload, layout.dp, span, 4 * parameters)
    states = optimizer_bytes(workload, parameters, layout, candidate.training)
    rate = workload.hardware.memory_bytes_per_second / workload.slowdown
    return reduce + Cost(memory=2 * (states + 4 * parameters) / rate)


def checkpoint_cost(workload: Workload, candidate: Candidate) -> Cost:
    """Weights and optimizer states of the trained roles, all ranks of a node sharing its disk."""
    trained = [Role.ACTOR_TRAIN] + [Role.CRITIC] * workload.job.needs_critic
    states = 0
    for role in trained:
        parameters = stage_parameters(workload.model, candidate.train, 0, role)
        states += workload.element_bytes * parameters // candidate.train.dp
        states += optimizer_bytes(workload, parameters, candidate.train, candidate.training)
    node_rate = workload.hardware.disk_gb_per_second * 1e9
    return Cost(memory=states * workload.ranks_per_node / node_rate)
