"""From what was found to a candidate: pools on consecutive ranks, a placement for each role."""

from __future__ import annotations

from plans.choice import Choice, Ends, Switch, Tables
from plans.dataflow import Role
from plans.layout import ParallelLayout
from plans.placement import Placement, ResourcePool
from plans.reshard import rollout_layout
from plans.search.branch import Found
from plans.search.pool import NOTHING, ROLLOUT, TRAIN
from plans.search.subspace import Pool
from plans.workload import Candidate

ALL = "all"


def candidate_of(found: Found) -> Candidate:
    """Pools one behind the other, the first group first, in each the largest pool first."""
    pools, first = [], 0
    for pool in found.pools:
        name = "+".join(pool.roles) if len(found.pools) > 1 else ALL
        pools.append(ResourcePool(name=name, first_rank=first, rank_count=pool.ranks))
        first += pool.ranks
    homes = {
        role: (home, pool)
        for home, pool in zip(pools, found.pools, strict=True)
        for role in pool.roles
    }
    picks = {pick.role: pick for pick in found.picks}
    placements = [
        Placement(
            role=role,
            pool=homes[role][0].name,
            layout=_layout(picks, pick, together=homes[role] == homes.get(TRAIN)),
            train=pick.train,
            rollout=pick.rollout,
        )
        for role in Role
        if (pick := picks.get(role))
    ]
    return Candidate(pools=tuple(pools), placements=tuple(placements))


def peak_bytes(tables: Tables, found: Found) -> float:
    """Device bytes of the fullest end of any pool, without the reserve of the process."""
    return max(max(pool_ends(tables, found, pool)) for pool in found.pools)


def pool_ends(tables: Tables, found: Found, pool: Pool) -> Ends:
    """Device bytes of the first and of the last rank of a pool in the fullest phase."""
    mine = [pick for pick in found.picks if pick.role in pool.roles]
    switch = _switch(tables, found, pool)
    first, last = (
        sum(pick.resident[end] for pick in mine)
        - switch.shared[end]
        + max(switch.staging[end], *(pick.transient[end] for pick in mine))
        for end in (0, 1)
    )
    return first, last


def _switch(tables: Tables, found: Found, pool: Pool) -> Switch:
    """The switch that a pool takes part in; an empty one when it does not."""
    picks = {pick.role: pick for pick in found.picks}
    if not {TRAIN, ROLLOUT} & set(pool.roles) or not {TRAIN, ROLLOUT} <= set(picks):
        return Switch(seconds=0.0, staging=NOTHING)
    together = {TRAIN, ROLLOUT} <= set(pool.roles)
    group = pool.group if together else 0
    return tables.switch(picks[TRAIN], picks[ROLLOUT], together=together, group=group)


def _layout(picks: dict[Role, Choice], pick: Choice, *, together: bool) -> ParallelLayout:
    """The layout of a choice; a rollout on the trainer's ranks is ordered near its shards."""
    if pick.role == ROLLOUT and together:
        return rollout_layout(picks[TRAIN].layout, pick.layout.tp)
    return pick.layout
