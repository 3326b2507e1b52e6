"""When nothing fits: the plan that needs the least memory, to say how much is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from math import inf

from plans.choice import Choice, Switch, Tables
from plans.dataflow import Role
from plans.search.branch import Found
from plans.search.pool import (
    ROLLOUT,
    TRAIN,
    Ceiling,
    Load,
    Part,
    both,
    front,
    pairs_of,
    part_of,
)
from plans.search.subspace import Pool


def smallest(tables: Tables, pool: Pool, choices: Mapping[Role, Sequence[Choice]]) -> Found | None:
    """The plan of one pool whose fullest rank needs the least; None when a role has no choice."""
    if not all(choices.values()):
        return None
    coupled = TRAIN in choices and ROLLOUT in choices
    parts: dict[Role, Part] = {
        role: front(part_of(some, keyed=coupled and role in (TRAIN, ROLLOUT)), _bytes)
        for role, some in choices.items()
    }
    ready: list[Part] = []
    if coupled:
        ready.append(front(_pairs(tables, parts.pop(TRAIN), parts.pop(ROLLOUT)), _bytes))
    loads = reduce(_with, [*ready, *parts.values()])
    least = min(loads, key=_peak)
    return Found(least.total, (pool,), least.picks)


def _pairs(tables: Tables, train: Part, rollout: Part) -> list[Load]:
    def switch(one: Choice, other: Choice) -> Switch:
        return tables.switch(one, other, together=True)

    stages = (0.0,) * len(train[0].seconds)
    ceiling = Ceiling(limit=inf, others=stages, alone=True)
    return pairs_of(train, rollout, switch, ceiling, rest=stages)


def _with(loads: Part, part: Part) -> list[Load]:
    return front([both(one, other) for one in loads for other in part], _bytes)


def _bytes(load: Load) -> tuple[float, ...]:
    return (*load.resident, *load.transient)


def _peak(load: Load) -> float:
    return max(map(sum, zip(load.resident, load.transient, strict=True)))
