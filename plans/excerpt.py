"""A plan with some of its roles alone: to answer held-out rows, or to learn from recorded ones."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from plans.dataflow import Role
from plans.plan import Plan

# What learns, and what scores for it: a step's work once its samples are there.
LEARNERS = (Role.ACTOR_TRAIN, Role.CRITIC, Role.REFERENCE)
# What answers: the policy's weights where training keeps them, and what generates from them.
ANSWERERS = (Role.ACTOR_TRAIN, Role.ACTOR_ROLLOUT)


def excerpt(plan: Plan, roles: Collection[Role]) -> Plan:
    """The plan with these roles alone, as they were: their placements and their phases.

    It has a digest of its own, and the memory that the others would have taken is left free.
    """
    return replace(
        plan,
        placements=tuple(one for one in plan.placements if one.role in roles),
        phases=tuple(one for one in plan.phases if one.role in roles),
    )
