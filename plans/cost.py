"""Seconds of what phases are made of: matrix work, collectives, a layer, a decoding step.

First version: constants per machine, no overlap of network and compute, no spread of
response lengths. `HardwareSpec.band` states how far a machine may be from it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from plans.hardware import MICROSECOND, Link
from plans.layout import ParallelLayout
from plans.memory import kv_bytes_per_token
from plans.model import ModelSpec
from plans.workload import Workload

ROOFLINE_POWER = 1.45
BACKWARD_PASSES = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Seconds by what binds them. The pieces follow one another, so the whole is their sum."""

    compute: float = 0.0
    memory: float = 0.0
    network: float = 0.0
    overhead: float = 0.0

    @property
    def seconds(self) -> float:
        return self.compute + self.memory + self.network + self.overhead

    @property
    def bound(self) -> str:
        """The kind that takes most of the time; the first in the account wins a tie."""
        kinds = [field.name for field in fields(self)]
        return max(kinds, key=lambda kind: float(getattr(self, kind)))

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            compute=self.compute + other.compute,
            memory=self.memory + other.memory,
            network=self.network + other.network,
            overhead=self.overhead + other.overhead,
        )

    def __mul__(self, factor: float) -> Cost:
        return Cost(
            compute=self.compute * factor,
            memory=self.memory * factor,
            network=self.network * factor,
            overhead=self.overhead * factor,
        )


def layer_flops(model: ModelSpec, tokens: float, context: float) -> float:
    """Forward FLOPs of one layer for `tokens` tokens in sequences of `context`.

    Two per weight and token; attention 4 a d per visible pair, half of the pairs being
    masked, so 2 a d s a token (Korthikanti et al. 2022, appendix A, halved as flash kernels
    skip the mask).
    """
    attention = 2 * model.head_count * model.head_size * context
    return tokens * (2 * model.layer_matrix_parameters + attention)


def matrix_cost(workload: Workload, flops: float, traffic: float, share: float) -> Cost:
    """Matrix work of one rank: t = (a^q + c^q)^(1/q), a by arithmetic and c by bytes moved.

    The form fits 4,176 measured GEMMs of A100 and H100 (Vidur) within 6.5 and 8.8 % at
    q = 1.42 and 1.476; 1.45 serves all. Booked on whichever of the two is larger.
    """
    hardware = workload.hardware
    arithmetic = flops / hardware.flops_per_second(workload.precision) / share
    moving = traffic / hardware.memory_bytes_per_second
    longest = max(arithmetic, moving)
    if longest == 0:
        return Cost()
    ratio = min(arithmetic, moving) / longest
    seconds = longest * (1 + ratio**ROOFLINE_POWER) ** (1 / ROOFLINE_POWER) * workload.slowdown
    return Cost(compute=seconds) if arithmetic >= moving else Cost(memory=seconds)


def copy_cost(workload: Workload, count: float) -> Cost:
    """A copy of `count` bytes within a device: read once, written once."""
    seconds = 2 * count / workload.hardware.memory_bytes_per_second
    return Cost(memory=seconds * workload.slowdown)


def link_between(workload: Workload, span: int) -> Link:
    """The link that carries a group whose ranks lie within `span` consecutive ranks."""
    hardware = workload.hardware
    return hardware.inner if span <= workload.ranks_per_node else hardware.outer


def message_cost(workload: Workload, span: int, count: float) -> Cost:
    """`count` bytes received from peers within `span` ranks: latency and wire."""
    if count == 0:
        return Cost()
    link = link_between(workload, span)
    seconds = link.latency_seconds + count / link.bytes_per_second
    return Cost(network=seconds * workload.slowdown)


def all_reduce_cost(workload: Workload, members: int, span: int, count: float) -> Cost:
    """An all-reduce of `count` bytes by a ring: latency and 2 (n - 1)/n of the bytes."""
    return message_cost(workload, span, 2 * (members - 1) / members * count)


def forward_cost(workload: Workload, layout: ParallelLayout, tokens: float) -> Cost:
    """One micro-batch of `tokens` tokens forward through the busiest pipeline stage.

    A layer costs its matrix work and two all-reduces of the activations (with sequence
    parallelism a reduce-scatter and an all-gather of the same bytes), and never less than
    its share of the launch floor, which is measured for forward and backward together.
    """
    model, hardware = workload.model, workload.hardware
    share, tp = hardware.train_share, layout.tp
    flops = layer_flops(model, tokens, workload.sequence_tokens)
    weight_bytes = workload.element_bytes * model.layer_matrix_parameters
    work = matrix_cost(workload, flops / tp, weight_bytes / tp, share)
    work += _two_reductions(workload, tp, tokens)
    floor = hardware.layer_microseconds * MICROSECOND / (1 + BACKWARD_PASSES)
    layer = work + Cost(overhead=max(0.0, floor * workload.slowdown - work.seconds))
    table = model.hidden_size * model.padded_vocab_size / tp
    head = matrix_cost(workload, 2 * tokens * table, workload.element_bytes * table, share)
    return layer * (model.layer_count // layout.pp) + head


def prefill_cost(workload: Workload, tp: int, tokens: float, context: float) -> Cost:
    """`tokens` prompt tokens in prompts of `context`, on a replica of `tp` ranks."""
    model, share = workload.model, workload.hardware.prefill_share
    flops = model.layer_count * layer_flops(model, tokens, context)
    traffic = workload.element_bytes * model.parameter_count
    work = matrix_cost(workload, flops / tp, traffic / tp, share)
    return work + _two_reductions(workload, tp, tokens) * model.layer_count


def decode_cost(workload: Workload, tp: int, rows: float, context: float) -> Cost:
    """One token for each of `rows` sequences of `context`, on a replica of `tp` ranks.

    The matrices take the longer of their arithmetic and the reading of their weights, then
    the visited KV cache is read; launches, sampling and the two small all-reduces of a layer
    come from the hardware file. Within 18 % of vLLM 0.24 with graphs on H200s (15 points of a
    0.5B and a 7B, tp 1 and 2, 1 to 256 sequences; 4 % in the median).
    """
    model, hardware = workload.model, workload.hardware
    rate = hardware.flops_per_second(workload.precision) * hardware.prefill_share
    weights = model.parameter_count / tp
    arithmetic = Cost(compute=2 * rows * weights / rate)
    reading = _read_cost(workload, workload.element_bytes * weights)
    cache = _read_cost(workload, rows * context * kv_bytes_per_token(workload, tp))
    launches = hardware.decode_layer_microseconds * model.layer_count
    fixed = Cost(overhead=(launches + hardware.sampling_microseconds * rows) * MICROSECOND)
    work = max(arithmetic, reading, key=lambda cost: cost.seconds) + cache + fixed
    return work * workload.slowdown + _small_reductions(workload, tp, rows)


def _read_cost(workload: Workload, count: float) -> Cost:
    return Cost(memory=count / workload.hardware.memory_bytes_per_second)


def _small_reductions(workload: Workload, tp: int, rows: float) -> Cost:
    """All-reduces of one decoding step: kilobytes, so that latency counts more than the wire."""
    if tp == 1:
        return Cost()
    model, hardware = workload.model, workload.hardware
    message = rows * model.hidden_size * workload.element_bytes
    wire = 2 * (tp - 1) / tp * message / link_between(workload, tp).bytes_per_second
    each = hardware.decode_reduce_microseconds * MICROSECOND + wire
    return Cost(network=2 * model.layer_count * each * workload.slowdown)


def _two_reductions(workload: Workload, tp: int, tokens: float) -> Cost:
    """The two all-reduces of a layer's activations."""
    message = tokens * workload.model.hidden_size * workload.element_bytes
    return all_reduce_cost(workload, tp, tp, message) * 2
