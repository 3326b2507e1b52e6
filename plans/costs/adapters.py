"""What of a role is trained when it has adapters: their bytes on a rank."""

from __future__ import annotations

from collections.abc import Iterator

from plans.adapters import adapter_parameters
from plans.bytes.account import Kind, Line
from plans.bytes.execution import Execution
from plans.bytes.stage import Stage
from plans.dataflow import Role
from plans.lora import LoraSpec
from plans.workload import Workload

MODULE = "adapters"
# The adapters that the run began with, with which the actor scores as its own reference.
START = "adapters.start"


def adapters_of(workload: Workload, role: Role) -> LoraSpec | None:
    """The adapters that a role trains in place of its model; only the actor has them."""
    return workload.job.lora if role == Role.ACTOR_TRAIN else None


def adapter_lines(
    workload: Workload, lora: LoraSpec, execution: Execution, stage: Stage
) -> Iterator[Line]:
    """Weights, gradients and optimizer as of any parameters; and once more those of the start.

    Activations are counted as without adapters: what their own products keep is as narrow as
    the rank, 0.2 % of a 7B's layer at rank 16.
    """
    numbers = adapter_parameters(workload.model, lora, execution.tp) * stage.layers
    states = execution.state_bytes * numbers
    states /= 1 if execution.sharding == "none" else execution.replicas
    kept = Kind.HOST if execution.optimizer_offload else Kind.OPTIMIZER
    yield Line(module=MODULE, kind=Kind.WEIGHTS, bytes=execution.weight_bytes * numbers)
    yield Line(module=MODULE, kind=Kind.GRADIENTS, bytes=execution.gradient_bytes * numbers)
    yield Line(module=MODULE, kind=kept, bytes=states)
    if workload.job.needs_reference:
        # as they were, and the actor's own while they are away
        both = 2 * execution.weight_bytes * numbers
        yield Line(module=START, kind=Kind.WEIGHTS, bytes=both)
