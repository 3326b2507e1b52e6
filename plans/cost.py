"""Seconds of the parts that phases are made of: matrix work, collectives, decoding."""

from __future__ import annotations

from dataclasses import dataclass

from plans.hardware import Link
from plans.model import ModelSpec
from plans.workload import Candidate, Workload

ROOFLINE_POWER = 1.45
BACKWARD_PASSES = 2.0
RECOMPUTE_PASSES = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Seconds by what binds them; the parts follow each other, so the total is their sum."""

    compute: float = 0.0
    memory: float = 0.0
    network: float = 0.0
    overhead: float = 0.0

    @property
    def seconds(self) -> float:
        return self.compute + self.memory + self.network + self.overhead

    @property
    def bound(self) -> str:
        """The kind that takes most of the time; the first named wins a tie."""
        parts = {"compute": self.compute, "memory": self.memory, "network": self.network}
        return max(
            [*parts, "overhead"], key=lambda name: {**parts, "overhead": self.overhead}[name]
        )

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            compute=self.compute + other.compute,
            memory=self.memory + other.memory,
            network=self.network + other.network,
            overhead=self.overhead + other.overhead,
        )

    def times(self, factor: float) -> Cost:
        return Cost(
            compute=self.compute * factor,
            memory=self.memory * factor,
            network=self.network * factor,
            overhead=self.overhead * factor,
        )


def layer_flops(model: ModelSpec, tokens: float, context: float) -> float:
    """Forward FLOPs of one layer: 2 per weight and token, and causal attention over `context`.

    Attention is 4 a d per pair of tokens, half of the pairs being masked (Korthikanti et al.
    2022, appendix A, halved as flash kernels do); `context` is the mean visible length times 2.
    """
    weights = sum(
        tensor.shape[0] * tensor.shape[1]
        for tensor in model.layer_tensors
        if len(tensor.shape) == 2
    )
    attention = 2 * model.head_count * model.head_size * context
    return tokens * (2 * weights + attention)


def head_flops(model: ModelSpec, tokens: float) -> float:
    """Forward FLOPs of the logits."""
    return 2 * tokens * model.hidden_size * model.vocab_size


def matrix_cost(workload: Workload, flops: float, traffic: float, share: float) -> Cost:
    """Matrix work on one rank: t = (a^q + c^q)^(1/q), a by arithmetic, c by memory traffic.

    q = 1.45 fits 4,176 measured GEMMs of A100 and H100 (Vidur) within 6.5 and 8.8 %; the time
    is booked on whichever of the two is larger.
    """
    hardware = workload.hardware
    rate = hardware.flops_per_second(workload.precision) * share / workload.slowdown
    arithmetic = flops / rate
    moving = traffic * workload.slowdown / hardware.memory_bytes_per_second
    longest = max(arithmetic, moving)
    if longest == 0:
        return Cost()
    ratio = min(arithmetic, moving) / longest
    seconds = longest * (1 + ratio**ROOFLINE_POWER) ** (1 / ROOFLINE_POWER)
    return Cost(compute=seconds) if arithmetic >= moving else Cost(memory=seconds)


def link_between(workload: Workload, span: int) -> Link:
    """The link that carries a group whose ranks lie within `span` consecutive ranks."""
    hardware = workload.hardware
    return hardware.inner if span <= workload.ranks_per_node else hardware.outer


def all_reduce_cost(workload: Workload, members: int, span: int, count: float) -> Cost:
    """An all-reduce of `count` bytes: latency + 2 (n - 1)/n bytes over the slowest link."""
    if members == 1 or count == 0:
        return Cost()
    link = link_between(workload, span)
    wire = 2 * (members - 1) / members * count / link.bytes_per_second
    return Cost(network=(link.latency_seconds + wire) * workload.slowdown)


def forward_stage_cost(workload: Workload, candidate: Candidate, tokens: float) -> Cost:
    """One micro-batch of `tokens` forward through the busiest pipeline stage.

    A layer costs its matrix work and two all-reduces of the activations (the reduce-scatter
    and all-gather of sequence parallelism move the same bytes), and never less than a third
    of the launch floor of a layer, which is measured for forward and backward together.
    """
    model, layout, hardware = workload.model, candidate.train, workload.hardware
    share = hardware.train_share
    weight_bytes = workload.element_bytes * sum(
        tensor.shape[0] * tensor.shape[-1] for tensor in model.layer_tensors
    )
    flops = layer_flops(model, tokens, workload.sequence_tokens) / layout.tp
    work = matrix_cost(workload, flops, weight_bytes / layout.tp, share)
    message = tokens * model.hidden_size * workload.element_bytes
    work += all_reduce_cost(workload, layout.tp, layout.tp, message).times(2)
    floor = hardware.layer_microseconds * 1e-6 / (1 + BACKWARD_PASSES) * workload.slowdown
    layer = work + Cost(overhead=max(0.0, floor - work.seconds))
    head_bytes = workload.element_bytes * model.hidden_size * model.padded_vocab_size
    head = matrix_cost(
        workload, head_flops(model, tokens) / layout.tp, head_bytes / layout.tp, share
    )
    return layer.times(model.layer_count // layout.pp) + head


def decode_step_cost(workload: Workload, tp: int, rows: float, context: float) -> Cost:
    """One token for each of `rows` sequences on a replica of `tp` ranks.

    Weights and the visited KV cache are read once; two all-reduces a layer; a launch cost a
    layer and a sampling cost a sequence, both from the hardware file.
    """
    model, hardware = workload.model, workload.hardware
    flops = 2 * rows * model.parameter_count / tp
    weights = workload.element_bytes * model.parameter_count / tp
    heads = max(1, model.kv_head_count // tp)
    cache_row = 2 * heads * model.head_size * model.layer_count * workload.element_bytes
    traffic = weights + rows * context * cache_row
    work = matrix_cost(workload, flops, traffic, hardware.prefill_share)
    message = rows * model.hidden_size * workload.element_bytes
    network = all_reduce_cost(workload, tp, tp, message).times(2 * model.layer_count)
    launch = hardware.decode_layer_microseconds * model.layer_count
    sampling = hardware.sampling_microseconds * rows
    return work + network + Cost(overhead=(launch + sampling) * 1e-6 * workload.slowdown)


def prefill_cost(workload: Workload, tp: int, tokens: float, context: float) -> Cost:
    """Prompts of `tokens` tokens in all, each `context` long, on a replica of `tp` ranks."""
    model = workload.model
    flops = model.layer_count * layer_flops(model, tokens, context) / tp
    traffic = workload.element_bytes * model.parameter_count / tp
    message = tokens * model.hidden_size * workload.element_bytes
    network = all_reduce_cost(workload, tp, tp, message).times(2 * model.layer_count)
    return matrix_cost(workload, flops, traffic, workload.hardware.prefill_share) + network
