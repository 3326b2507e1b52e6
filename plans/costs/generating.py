"""Seconds of a generation on one replica of the rollout, and what binds it."""

from __future__ import annotations

from dataclasses import replace

from plans.costs.parts import Parts, with_stack
from plans.costs.work import replica
from plans.layout import ParallelLayout
from plans.times.generation import (
    GenerationTime,
    cache_bytes_per_token,
    decode_step_time,
    generation_time,
)
from plans.times.lengths import Lengths, lognormal_lengths
from plans.times.shape import Shape
from plans.values import frozen
from plans.workload import Workload


@frozen
class Requests:
    """What one replica is asked for: the answers' lengths and the prompt tokens it reads."""

    rows: float
    prompt: float
    lengths: Lengths
    prefix_tokens: float


def response_lengths(workload: Workload, samples: int) -> Lengths:
    """The responses of a whole batch; log-normal around their mean, none beyond the limit."""
    asked = float(workload.job.batch.prompts * samples)
    return lognormal_lengths(asked, workload.mean_response, float(workload.job.tokens.response))


def requests_of(workload: Workload, replicas: int, samples: int, lengths: Lengths) -> Requests:
    """The share of a replica of the batch's `lengths`, the longest among them.

    Samples of a prompt share the whole blocks of its cache, so that these are read once (vLLM's
    prefix caching).
    """
    asked = workload.job.batch.prompts * samples
    rows = -(-asked // replicas)
    prompt, prompts = workload.mean_prompt, -(-rows // samples)
    block = workload.hardware.kv_block_tokens
    shared = prompt // block * block
    return Requests(
        rows=rows,
        prompt=prompt,
        lengths=tuple((length, share * rows / asked) for length, share in lengths),
        prefix_tokens=prompts * prompt + (rows - prompts) * (prompt - shared),
    )


def generate_seconds(
    workload: Workload, shape: Shape, layout: ParallelLayout, concurrency: int, asked: Requests
) -> float:
    """Until the last response of the replica ends."""
    total = _time(workload, shape, layout, concurrency, asked).total
    return total * workload.machine.step_rates.generate_factor


def generate_parts(
    workload: Workload, shape: Shape, layout: ParallelLayout, concurrency: int, asked: Requests
) -> Parts:
    """The seconds of `generate_seconds`: prompts, steps while most run, the tail."""
    time = _time(workload, shape, layout, concurrency, asked)
    parts = {"prefill": time.prefill, "body": time.body, "tail": time.tail}
    return with_stack(parts, workload.machine.step_rates.generate_factor)


def decode_parts(
    workload: Workload, shape: Shape, layout: ParallelLayout, rows: float, context: float
) -> Parts:
    """One decode step of `rows` sequences by what binds it: memory, compute, link, launch."""
    at, machine = replica(workload, layout), workload.machine
    ops, rates = machine.generate, machine.generate_rates
    silent = replace(rates, layer_us=0.0, step_us=0.0, sequence_us=0.0)
    whole = decode_step_time(shape, at, ops, rates, rows, context)
    busy = decode_step_time(shape, at, ops, silent, rows, context)
    matrices = decode_step_time(shape, at, ops, silent, rows, 0.0)
    wire = 0.0
    if at.tp > 1:
        wire = 2 * ops.collective("all_reduce", 2.0 * rows * shape.hidden, at.ranks)
        wire *= shape.layers * rates.slowdown
    arithmetic = 2.0 * rows * shape.active_parameters / machine.device.flops_per_second("bf16")
    reading = 2.0 * shape.active_parameters / machine.device.memory_bytes_per_second
    bound = "compute" if arithmetic > reading else "memory"
    parts = {"memory": busy - matrices, "link": wire, "launch": whole - busy}
    return {**parts, bound: parts.get(bound, 0.0) + matrices - wire}


def sequence_bytes(workload: Workload, shape: Shape, layout: ParallelLayout) -> int:
    """The cache of one sequence of the longest prompt and response on a rank, in whole blocks."""
    block = workload.hardware.kv_block_tokens
    tokens = -(-workload.sequence_tokens // block) * block
    each = cache_bytes_per_token(shape, replica(workload, layout)) / layout.tp
    return int(tokens * each * workload.element_bytes / 2)


def _time(
    workload: Workload, shape: Shape, layout: ParallelLayout, concurrency: int, asked: Requests
) -> GenerationTime:
    machine = workload.machine
    return generation_time(
        shape,
        replica(workload, layout),
        machine.generate,
        machine.generate_rates,
        asked.prompt,
        asked.lengths,
        asked.prefix_tokens,
        concurrency,
    )
