"""Why there is no plan: what is not legal, or how much is missing and what would help."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from plans.bytes.account import Verdict
from plans.dataflow import Role
from plans.legality import Rejection
from plans.search.assembly import candidate_of, peak_bytes
from plans.search.book import Book
from plans.search.pool import ROLLOUT
from plans.search.shortage import smallest
from plans.search.subspace import Pool
from plans.source import PlanError
from plans.units import GIB
from plans.workload import Candidate, Workload

MOST_NODES_TRIED = 512


def nothing_legal(role: Role, rejected: Sequence[Rejection]) -> PlanError:
    """What stands in the way of a role, each reason once; at the role that the user can change."""
    reasons = dict.fromkeys(one.reason for one in rejected)
    text = (
        "; ".join(reasons) or "its fixed degrees do not multiply to a number of ranks it may have"
    )
    return PlanError(f"no legal layout: {text}", at=("roles", role.value))


def nothing_shared(book: Book, rejected: Sequence[Rejection]) -> PlanError:
    """Each role has legal layouts, but no one layout is legal for all: what stands in its way."""
    problem = book.problem
    first = problem.roles[0]
    legal = {one.layout for one in book.all_choices(first, problem.ranks[0], 0)}
    reasons = dict.fromkeys(
        f"{one.role.value} model: {one.reason}"
        for one in rejected
        if one.role not in (first, ROLLOUT) and one.layout in legal
    )
    return PlanError(f"no legal layout: {'; '.join(reasons)}", at=("roles", first.value))


def too_large(book: Book) -> Iterator[tuple[Candidate, float]]:
    """The layouts that do not fit when all roles share all ranks, each with its least need."""
    problem = book.problem
    pool = Pool(problem.roles, problem.ranks[0], 0)
    tables = {
        role: [one for one in book.all_choices(role, pool.ranks, 0) if problem.admits(one)]
        for role in problem.roles
    }
    trained = next(iter(problem.roles))
    layouts = dict.fromkeys(one.layout for one in tables[trained])
    for layout in layouts:
        same = {
            role: [one for one in some if role == ROLLOUT or one.layout == layout]
            if problem.one_layout or role == trained
            else some
            for role, some in tables.items()
        }
        found = smallest(problem.tables, pool, same)
        if found and peak_bytes(problem.tables, found) > problem.tables.capacity(0):
            yield candidate_of(found), peak_bytes(problem.tables, found)


def rejection(workload: Workload, candidate: Candidate, need: float) -> Rejection:
    """A layout with the least it would need, the reserve of the process included."""
    has, need = workload.hardware.memory_gib, need + workload.hardware.reserve_bytes
    text = f"needs {need / GIB:.3g} GiB per {workload.hardware.device}, there are {has:.3g}"
    return Rejection(what=str(candidate), layout=candidate.train, reason=text)


def failed_check(candidate: Candidate, verdict: Verdict) -> Rejection:
    """A plan whose account breaks on a rank between the two ends that the search looks at."""
    account = verdict.account
    reason = (
        f"needs {account.total / GIB:.4g} GiB on rank {account.rank} in {account.phase}, "
        f"there are {verdict.capacity_bytes / GIB:.4g}"
    )
    return Rejection(what=str(candidate), layout=candidate.train, reason=reason)


def nothing_fits(
    workload: Workload,
    best: tuple[Candidate, float],
    breaks: Callable[[Candidate], str],
    fits: Callable[[Workload], bool],
) -> PlanError:
    """How much is missing, where the account breaks, and the number of nodes that would do."""
    candidate, need = best
    hardware = workload.hardware
    need += hardware.reserve_bytes
    nodes = next((one for one in _more_nodes(workload) if fits(one)), None)
    where = breaks(candidate)
    hint = f"; try nodes: {nodes.job.cluster.nodes}" if nodes else ""
    return PlanError(
        f"no layout fits: the best ({candidate}) needs {need / GIB:.3g} GiB per "
        f"{hardware.device}, {hardware.name} has {hardware.memory_gib:.3g}; {where}{hint}"
    )


def _more_nodes(workload: Workload) -> Iterator[Workload]:
    """The same on two, four, eight times the nodes, where the cluster is of one kind."""
    cluster = workload.job.cluster
    factor = 2
    while not cluster.groups and cluster.nodes * factor <= MOST_NODES_TRIED:
        ranks = cluster.ranks * factor if cluster.ranks else None
        more = cluster.model_copy(update={"nodes": cluster.nodes * factor, "ranks": ranks})
        yield replace(workload, job=workload.job.model_copy(update={"cluster": more}))
        factor *= 2
