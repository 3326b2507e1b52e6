"""The schedule of a plan's weight switch: on the ranks of one pool, or from pool to pool."""

from __future__ import annotations

from plans.crossing import Crossing
from plans.dataflow import Role
from plans.plan import Plan
from plans.reshard import build, build_apart
from plans.schedule import ReshardSchedule
from plans.workload import ELEMENT_BYTES


def schedule_of(
    plan: Plan, island_ranks: int = 1, *, base: bool = False
) -> ReshardSchedule | Crossing:
    """The schedule from the trained actor to the rollout; KeyError when there is no rollout.

    With adapters it is theirs, or with `base` that of the weights beside them. `island_ranks`
    consecutive ranks read each other's memory.
    """
    train, rollout = plan.placement(Role.ACTOR_TRAIN), plan.placement(Role.ACTOR_ROLLOUT)
    lora = None if base else plan.job.lora
    width = ELEMENT_BYTES[plan.precision]
    if train.pool == rollout.pool:
        return build(
            plan.model,
            train.layout,
            rollout.layout,
            width,
            ranks_per_node=plan.group_of(train.pool).ranks_per_node,
            island_ranks=island_ranks,
            lora=lora,
        )
    return build_apart(
        plan.model,
        train.layout,
        rollout.layout,
        width,
        train_first=plan.pool(Role.ACTOR_TRAIN).first_rank,
        rollout_first=plan.pool(Role.ACTOR_ROLLOUT).first_rank,
        island_ranks=island_ranks,
        lora=lora,
    )
