"""The accounts of a training step: at the loss, and in the middle of the backward pass."""

from __future__ import annotations

from plans.bytes.account import Account, Kind, Line
from plans.bytes.execution import Execution
from plans.bytes.layer import (
    Kept,
    attention_kept,
    backward_bytes,
    checkpoint_bytes,
    layer_kept,
)
from plans.bytes.schedule import in_flight
from plans.bytes.stage import Held, Stage, held, layer_parameters, stage_of
from plans.times.shape import Shape

GATHERED_LAYERS = 3
OUTER = "outer"
ADAPTER_BYTES = 16
# Adam's two moments in fp32.
MOMENT_BYTES = 8


def training_accounts(
    shape: Shape,
    execution: Execution,
    *,
    reserve_bytes: float = 0.0,
    exchange_bytes: float = 0.0,
    stages: tuple[int, ...] = (),
) -> list[Account]:
    """Both moments of each of `stages`: of the first and the last, one of which is the fullest.

    `reserve_bytes` are workspaces, `exchange_bytes` collectives' buffers where there are peers.
    """
    accounts = []
    alone = execution.replicas * execution.tp == 1
    buffers = 0.0 if alone else exchange_bytes
    for number in stages or ends(execution):
        stage = stage_of(shape, execution, number)
        lasting = [
            *resident_lines(shape, execution, stage),
            *activation_lines(shape, execution, stage),
            Line(module="process", kind=Kind.RESERVE, bytes=reserve_bytes),
            Line(module="process", kind=Kind.COMMUNICATION, bytes=buffers),
        ]
        for moment, extra in (
            ("loss", _loss_lines(shape, execution, stage)),
            ("backward", _backward_lines(shape, execution, stage)),
        ):
            accounts.append(
                Account(phase="train", moment=moment, stage=number, lines=_some([*lasting, *extra]))
            )
    return accounts


def scoring_accounts(
    shape: Shape, execution: Execution, *, reserve_bytes: float = 0.0, stages: tuple[int, ...] = ()
) -> list[Account]:
    """A forward pass alone, on the first and last stage: weights, one layer, the logits."""
    accounts = []
    for number in stages or ends(execution):
        stage = stage_of(shape, execution, number)
        lines = [
            Line(module=each.module, kind=Kind.WEIGHTS, bytes=_weights(each, execution))
            for each in held(shape, execution, stage)
        ]
        kept = layer_kept(shape, execution, mixture=stage.mixture_layers > 0)
        alive = sum(each.on_rank(execution) for each in kept) * execution.tokens
        accounts.append(
            Account(
                phase="score",
                moment="forward",
                stage=number,
                lines=_some(
                    [
                        *lines,
                        Line(module="layers.live", kind=Kind.ACTIVATIONS, bytes=alive),
                        *_loss_lines(shape, execution, stage),
                        Line(module="process", kind=Kind.RESERVE, bytes=reserve_bytes),
                    ]
                ),
            )
        )
    return accounts


def ends(execution: Execution) -> tuple[int, ...]:
    """The first and the last stage."""
    return (0,) if execution.pp == 1 else (0, execution.pp - 1)


def resident_lines(shape: Shape, execution: Execution, stage: Stage) -> list[Line]:
    """Weights, gradients and optimizer of each module: what lasts from step to step.

    6 + 12 / D bytes a parameter with a distributed optimizer, 18 without (Megatron-core,
    theoretical_memory_usage.py), 16 / D when all is sharded over fp32 masters. An offloaded
    optimizer has Adam's two moments on the host, the master copy stays. Adapters
    train in fp32 with Adam, 16 bytes, and leave the model's weights alone.
    """
    lines = []
    for each in held(shape, execution, stage):
        lines.append(Line(module=each.module, kind=Kind.WEIGHTS, bytes=_weights(each, execution)))
        if execution.adapter_rank:
            trained = execution.adapter_rank * each.adapters * ADAPTER_BYTES
            owners = _owners(each, execution) if execution.sharding == "full" else 1
            lines.append(
                Line(module=f"{each.module}.adapter", kind=Kind.OPTIMIZER, bytes=trained / owners)
            )
            continue
        gradients = execution.gradient_bytes * each.parameters
        if execution.sharding == "full":
            gradients /= _owners(each, execution)
        lines.append(Line(module=each.module, kind=Kind.GRADIENTS, bytes=gradients))
        owned = each.parameters / (1 if execution.sharding == "none" else _owners(each, execution))
        states = execution.state_bytes * owned
        moved = min(execution.state_bytes, MOMENT_BYTES) * owned * execution.optimizer_offload
        lines.append(Line(module=each.module, kind=Kind.HOST, bytes=moved))
        lines.append(Line(module=each.module, kind=Kind.OPTIMIZER, bytes=states - moved))
    return lines


def activation_lines(shape: Shape, execution: Execution, stage: Stage) -> list[Line]:
    """What the stage's layers keep over all micro-batches in flight."""
    flying = in_flight(execution, stage.number) * execution.tokens
    if execution.recompute == "full":
        layers = OFFLOADED_LAYERS if execution.activation_offload else stage.layers
        kept = checkpoint_bytes(shape, execution) * layers * flying
        lines = [Line(module="layers.inputs", kind=Kind.ACTIVATIONS, bytes=kept)]
        if execution.activation_offload:
            moved = checkpoint_bytes(shape, execution) * stage.layers * flying
            lines.append(Line(module="layers.inputs", kind=Kind.HOST, bytes=moved))
        return lines
    if execution.recompute == "selective" and execution.sharding == "full":
        return _selected_lines(shape, execution, stage, flying)
    parts: list[tuple[float, Kept]] = []
    for layers, mixture in ((stage.dense_layers, False), (stage.mixture_layers, True)):
        parts += [(layers, each) for each in layer_kept(shape, execution, mixture=mixture)]
    return [
        Line(
            module=each.module,
            kind=Kind.ACTIVATIONS,
            bytes=layers * each.on_rank(execution) * flying,
        )
        for layers, each in parts
        if layers
    ]


OFFLOADED_LAYERS = 2


def _selected_lines(shape: Shape, execution: Execution, stage: Stage, flying: float) -> list[Line]:
    """torchtitan's selective recomputation: the attention's output and every second matrix's.

    The layer's input is kept too (torchtitan, activation checkpointing, mode "op").
    """
    tp, tail = execution.tp, 2 * shape.hidden
    attention = attention_kept(shape, execution)
    inner = (
        shape.inner
        if stage.dense_layers
        else shape.expert_inner * (shape.experts_per_token + shape.shared_experts)
    )
    outputs = attention.cut - 2 * shape.value_width + tail + 2 * 2 * inner + tail
    each = checkpoint_bytes(shape, execution) + (2 * shape.value_width + outputs / 2) / tp
    bytes_kept = stage.layers * each * flying
    return [Line(module="layers", kind=Kind.ACTIVATIONS, bytes=bytes_kept)]


def _loss_lines(shape: Shape, execution: Execution, stage: Stage) -> list[Line]:
    if not stage.has_head:
        return []
    row = max(1, shape.head_rows / execution.tp) * execution.logit_bytes
    lines = [Line(module="head", kind=Kind.LOGITS, bytes=row * execution.tokens)]
    if execution.sharding == "full":
        outer = stage.tables * shape.vocab * shape.hidden / execution.tp
        lines.append(Line(module=OUTER, kind=Kind.COMMUNICATION, bytes=2 * outer))
    return lines


def _backward_lines(shape: Shape, execution: Execution, stage: Stage) -> list[Line]:
    """One layer recomputed and differentiated, and with FSDP the layers gathered meanwhile.

    The outer modules stay gathered in bf16 until their gradients are reduced, the head's
    gradient beside them; of the layers three copies are there (the one at work, the next, and
    its buffer), and the gradients of one in bf16 and in fp32 (PyTorch FSDP2, mp_policy).
    """
    live = execution.recompute == "full" or execution.sharding == "full"
    lines = []
    if live:
        one = backward_bytes(shape, execution, mixture=stage.mixture_layers > 0)
        lines.append(
            Line(module="layers.live", kind=Kind.ACTIVATIONS, bytes=one * execution.tokens)
        )
    if execution.sharding != "full":
        return lines
    table = shape.vocab * shape.hidden / execution.tp
    layer = layer_parameters(shape, execution)
    trains = not execution.adapter_rank
    outer_bytes = 2 * stage.tables * table + (2 * table if trains and stage.has_head else 0)
    most = execution.gathered_parameters
    layer_bytes = 2 * min(most, GATHERED_LAYERS * layer) + (6 * min(most, layer) if trains else 0)
    return [
        *lines,
        Line(module=OUTER, kind=Kind.COMMUNICATION, bytes=outer_bytes),
        Line(module="layers.gathered", kind=Kind.COMMUNICATION, bytes=layer_bytes),
    ]


def _weights(each: Held, execution: Execution) -> float:
    owners = _owners(each, execution) if execution.sharding == "full" else 1
    return execution.weight_bytes * each.parameters / owners


def _owners(each: Held, execution: Execution) -> float:
    return execution.expert_replicas if each.expert else execution.replicas


def _some(lines: list[Line]) -> tuple[Line, ...]:
    return tuple(line for line in lines if line.bytes)
