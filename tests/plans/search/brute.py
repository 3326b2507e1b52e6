"""The fastest plan found by looking at every one of them, in the plainest way."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from plans.choice import Choice, Switch
from plans.dataflow import Role
from plans.search.problem import Problem

TRAIN, ROLLOUT = Role.ACTOR_TRAIN, Role.ACTOR_ROLLOUT
Home = tuple[int, int, int]  # pool, ranks, group


def every_plan(problem: Problem) -> Iterator[tuple[tuple[Choice, ...], tuple[Home, ...]]]:
    """The choice of each role and its home, for all placements, sizes and choices."""
    groups = range(len(problem.ranks))
    for blocks in _partitions(list(problem.roles)):
        if len(blocks) > problem.limits.pools:
            continue
        for homes in product(groups, repeat=len(blocks)):
            for sizes in product(*([*range(1, problem.ranks[home] + 1)] for home in homes)):
                used = [0 for _ in groups]
                for home, size in zip(homes, sizes, strict=True):
                    used[home] += size
                if tuple(used) == problem.ranks:
                    yield from _choices(problem, blocks, homes, sizes)


def fastest(problem: Problem) -> tuple[float | None, int]:
    """Seconds of the fastest plan that fits, and the number of all plans."""
    best, count = None, 0
    for picks, homes in every_plan(problem):
        count += 1
        seconds = step(problem, picks, homes)
        if seconds is not None and (best is None or seconds < best):
            best = seconds
    return best, count


def step(problem: Problem, picks: tuple[Choice, ...], homes: tuple[Home, ...]) -> float | None:
    """Seconds of a step; None when a rank of a pool has no room."""
    tables, where = problem.tables, {one.role: home for one, home in zip(picks, homes, strict=True)}
    by_role = {one.role: one for one in picks}
    none = Switch(seconds=0.0, staging=(0.0, 0.0))
    switch, together = none, False
    if TRAIN in where and ROLLOUT in where:
        together = where[TRAIN] == where[ROLLOUT]
        switch = tables.switch(by_role[TRAIN], by_role[ROLLOUT], together=together)
    pools = []
    for home in dict.fromkeys(homes):
        mine = [one for one in picks if where[one.role] == home]
        switches = any(one.role in (TRAIN, ROLLOUT) for one in mine)
        for end in (0, 1):
            held = sum(one.resident[end] for one in mine) - (switch.shared[end] if switches else 0)
            staged = switch.staging[end] if switches else 0.0
            if held + max(staged, *(one.transient[end] for one in mine)) > tables.capacity(home[2]):
                return None
        if sum(one.host_bytes for one in mine) > tables.host_capacity(home[2]):
            return None
        pools.append([sum(stage) for stage in zip(*(one.seconds for one in mine), strict=True)])
    return sum(map(max, zip(*pools, strict=True))) + switch.seconds


def _choices(problem, blocks, homes, sizes):
    places = [
        (role, (number, sizes[number], homes[number]))
        for number, block in enumerate(blocks)
        for role in block
    ]
    if any(size not in problem.tables.sizes(role, home) for role, (_, size, home) in places):
        return
    tables = [problem.tables.choices(role, size, home) for role, (_, size, home) in places]
    for picks in product(*tables):
        layouts = {one.layout for one in picks if one.role != ROLLOUT}
        if len(layouts) <= 1 or not problem.one_layout:
            yield picks, tuple(home for _, home in places)


def _partitions(roles):
    if not roles:
        yield []
        return
    for rest in _partitions(roles[1:]):
        yield [[roles[0]], *rest]
        for number in range(len(rest)):
            yield [*rest[:number], [roles[0], *rest[number]], *rest[number + 1 :]]
