"""Seconds of the phases in which no model works: rewards by rule, advantages, checkpoints."""

from __future__ import annotations

from plans.bytes.account import Kind
from plans.bytes.stage import stage_of
from plans.bytes.training import resident_lines
from plans.costs.adapters import MODULE, adapter_lines, adapters_of
from plans.costs.parts import Parts
from plans.costs.work import execution, role_shape
from plans.dataflow import Role
from plans.layout import ParallelLayout
from plans.placement import TrainSettings
from plans.times.collectives import group
from plans.units import GIGA
from plans.workload import Workload

# Measured on one core of a cloud machine: text and rule reward of a completion, statistics
# of a batch, and the tensors of a batch that every rank gets from the ranks that made them. On
# H200: results taken from and brought to the device, and text made of a token (32 and 64
# completions of 6 and 512 tokens, 3.4 to 15 ms; benchmarks/results).
REWARD_SECONDS = 35e-6
DEVICE_SECONDS = 3.5e-3
TEXT_SECONDS = 0.28e-6
ADVANTAGE_SECONDS = 300e-6
SHARED_TENSORS = 5


def reward_parts(workload: Workload, layout: ParallelLayout) -> Parts:
    """One rank of a replica rewards its completions; then all ranks learn of all.

    Each of the shared tensors has four bytes a token and is summed over all ranks, most of
    which give zeros.
    """
    machine, sequences = workload.machine, workload.job.batch.sequences
    ranks = layout.world_size
    each = REWARD_SECONDS + TEXT_SECONDS * workload.mean_response
    device = DEVICE_SECONDS if workload.hardware.platform != "cpu" else 0.0
    own = (device + each * sequences / layout.dp) * workload.slowdown
    if ranks == 1:
        return {"host": own}
    # In the units of the models, two bytes an element.
    count = 8.0 / machine.element_bytes * sequences * workload.sequence_tokens
    everyone = group(ranks, 1, workload.ranks_per_node)
    wire = machine.train.collective("all_reduce", count, everyone) * workload.slowdown
    kind = "nic" if everyone.domains > 1 else "link"
    return {"host": own, kind: wire * SHARED_TENSORS}


def advantage_parts(workload: Workload) -> Parts:
    return {"host": ADVANTAGE_SECONDS * workload.slowdown}


def checkpoint_parts(
    workload: Workload, trained: list[tuple[Role, ParallelLayout, TrainSettings]]
) -> Parts:
    """Weights (written by one replica) and optimizer states; a node's ranks share its disk.

    Of a role with adapters those alone.
    """
    total = 0.0
    for role, layout, settings in trained:
        shape, run = role_shape(workload, role), execution(workload, layout, settings, 1)
        here, lora = stage_of(shape, run, 0), adapters_of(workload, role)
        lines = (
            [one for one in adapter_lines(workload, lora, run, here) if one.module == MODULE]
            if lora
            else resident_lines(shape, run, here)
        )
        for line in lines:
            if line.kind == Kind.WEIGHTS:
                total += line.bytes / (layout.dp * layout.cp)
            elif line.kind in (Kind.OPTIMIZER, Kind.HOST):
                total += line.bytes
    disk = workload.hardware.disk_gb_per_second * GIGA
    return {"disk": total * workload.ranks_per_node / disk}
