"""Seconds of the phases in which a model learns or scores, and what they go to."""

from __future__ import annotations

from dataclasses import replace

from plans.costs.parts import Parts, scaled, with_stack
from plans.machine import Machine
from plans.times.collectives import Group
from plans.times.layer import TrainSetting, layer_pass
from plans.times.rates import TrainRates
from plans.times.shape import Shape
from plans.times.training import forward_time, train_step_time


def learn_seconds(machine: Machine, shape: Shape, at: TrainSetting) -> float:
    """One optimizer step: forward, backward, gradients reduced, Adam."""
    seconds = train_step_time(shape, at, machine.train, machine.train_rates).total
    return seconds * machine.step_rates.update_factor


def score_seconds(machine: Machine, shape: Shape, at: TrainSetting) -> float:
    """One forward pass over the micro-batches of `at`."""
    seconds = forward_time(shape, at, machine.train, machine.train_rates)
    return seconds * machine.step_rates.forward_factor


def learn_parts(machine: Machine, shape: Shape, at: TrainSetting) -> Parts:
    """The seconds of `learn_seconds` by kind; what the launches of the host add is told apart."""
    rates = machine.train_rates
    time = train_step_time(shape, at, machine.train, rates)
    launched = _launched(machine, shape, at, time.compute, passes=3)
    parts = {
        "compute": time.compute - launched,
        "launch": launched,
        _wire(at.tensor_group, at.expert_group): time.exposed,
        "bubble": time.bubble,
        "optimizer": time.optimizer,
        "host": time.host,
    }
    for kind, seconds in (
        (_wire(at.stage_group), time.stages),
        (_wire(at.data_group), time.data),
    ):
        parts[kind] = parts.get(kind, 0.0) + seconds
    parts = scaled(parts, rates.slowdown)
    return with_stack(parts, machine.step_rates.update_factor)


def score_parts(machine: Machine, shape: Shape, at: TrainSetting) -> Parts:
    """The seconds of `score_seconds` by kind."""
    rates = machine.train_rates
    total = forward_time(shape, at, machine.train, rates) / rates.slowdown
    host = at.micro_batches * rates.micro_batch_us * 1e-6
    waves = at.micro_batches + (at.pp - 1) / at.virtual
    stage = (total - host) / waves
    busy = at.micro_batches * stage
    wire = min(busy, at.micro_batches * _exposed(machine, shape, at))
    launched = _launched(machine, shape, at, busy - wire, passes=1)
    parts = {
        "compute": busy - wire - launched,
        "launch": launched,
        _wire(at.tensor_group, at.expert_group): wire,
        "bubble": (waves - at.micro_batches) * stage,
        "host": host,
    }
    parts = scaled(parts, rates.slowdown)
    return with_stack(parts, machine.step_rates.forward_factor)


def _exposed(machine: Machine, shape: Shape, at: TrainSetting) -> float:
    """Communication that a stage's layers wait for in the forward pass of a micro-batch."""
    mixture = shape.mixture_layers > 0
    one = layer_pass(
        shape, replace(at, recompute="none"), machine.train, machine.train_rates, mixture
    )
    return one.exposed / 2 * shape.layers / at.pp


def _launched(
    machine: Machine, shape: Shape, at: TrainSetting, compute: float, passes: int
) -> float:
    """Of the seconds of compute, those in which the device waits for the host's launches."""
    rates = machine.train_rates
    mixture = shape.mixture_layers > 0
    free = replace(rates, forward_floor_us=0.0, backward_floor_us=0.0, tensor_floor_us=0.0)
    with_host, without = (
        _layer_seconds(machine, shape, at, each, mixture, passes) for each in (rates, free)
    )
    return compute * max(0.0, 1 - without / with_host)


def _layer_seconds(
    machine: Machine, shape: Shape, at: TrainSetting, rates: TrainRates, mixture: bool, passes: int
) -> float:
    one = layer_pass(shape, at, machine.train, rates, mixture)
    return one.forward if passes == 1 else one.total


def _wire(*groups: Group) -> str:
    """The kind of a group's wire: 'nic' when it leaves the node."""
    return "nic" if any(one.domains > 1 for one in groups) else "link"
