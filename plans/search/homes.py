"""Groups of nodes of several kinds: where each role may be, and why no plan is on all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from plans.dataflow import Role, roles_of
from plans.search.book import Book
from plans.source import PlanError
from plans.units import GIB
from plans.workload import Workload


def homes_of(workload: Workload) -> Mapping[Role, tuple[int, ...]]:
    """The groups of the roles that the user bound to one; PlanError when one has no role left.

    Every group has work in every plan: nodes that nothing runs on are better left out.
    """
    names = [group.name for group in workload.job.cluster.all_groups]
    roles = roles_of(workload.job)
    asked = {role: getattr(workload.job.roles, role.value).group for role in roles}
    homes = {role: (names.index(name),) for role, name in asked.items() if name}
    free = len(roles) - len(homes)
    idle = [name for number, name in enumerate(names) if (number,) not in homes.values()]
    if len(idle) > free:
        text = f"no role is left for the nodes of {', '.join(idle)}; bind one, or leave them out"
        raise PlanError(text, at=("cluster", "groups"))
    return homes


def asked_pools(workload: Workload) -> frozenset[frozenset[Role]]:
    """The roles of each pool that the job asks for: those that name it, and no others.

    With a lag there are two: the rollout's, and that of all who learn from what it sampled a
    step before. PlanError when the job names others, or has but one rank.
    """
    roles = roles_of(workload.job)
    asked = {role: getattr(workload.job.roles, role.value).pool for role in roles}
    names = {name for name in asked.values() if name}
    named = frozenset(frozenset(role for role in roles if asked[role] == name) for name in names)
    if not workload.job.algorithm.lag:
        return named
    if workload.world_size < 2:
        text = "the rollout is a step ahead on ranks of its own; there is but one rank"
        raise PlanError(text, at=("algorithm", "lag"))
    rollout = frozenset({Role.ACTOR_ROLLOUT})
    two = frozenset({rollout, frozenset(roles) - rollout})
    if named - two:
        text = "with a lag the rollout has a pool, and all other roles share another"
        raise PlanError(text, at=("algorithm", "lag"))
    return two


def nothing_on_groups(book: Book, workload: Workload) -> PlanError:
    """Each role that fits none of its groups by itself, with the least it needs on each."""
    short = [
        f"{role.value} needs {'; '.join(needs)}"
        for role in book.problem.roles
        if all(needs := list(_needs(book, workload, role)))
    ]
    text = "; ".join(short) or "every role fits by itself on one, but not all of them together"
    return PlanError(f"no placement on the groups of nodes fits: {text}", at=("cluster", "groups"))


def _needs(book: Book, workload: Workload, role: Role) -> Iterator[str]:
    """For each group of a role the least it needs there alone; '' where that has room."""
    for home in book.problem.groups_of(role):
        here, name = workload.groups[home], workload.job.cluster.all_groups[home].name
        choices = [
            one for one in book.all_choices(role, here.world_size, home) if book.problem.admits(one)
        ]
        if any(book.fits_alone(one, home) for one in choices):
            yield ""
            continue
        needs = [max(map(sum, zip(one.resident, one.transient, strict=True))) for one in choices]
        if not needs:
            yield f"another layout on {name}, where none is legal"
            continue
        least = (min(needs) + here.hardware.reserve_bytes) / GIB
        has = f"a {here.hardware.device} of {name} has {here.hardware.memory_gib:.3g}"
        yield f"{least:.3g} GiB, {has}"
