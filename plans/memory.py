"""The memory of a candidate: the account of every rank in every phase, and whether it fits."""

from __future__ import annotations

from collections.abc import Iterator

from plans.bytes.account import Account, Kind, Line, Verdict, fullest, verdict
from plans.costs.resident import role_lines
from plans.costs.switching import moved_apart
from plans.costs.work import GENERATES, role_shape, working_role
from plans.dataflow import Role, phases_of
from plans.layout import ParallelLayout
from plans.placement import Placement, ResourcePool
from plans.workload import Candidate, Workload


def phase_account(workload: Workload, candidate: Candidate, phase: str, rank: int) -> Account:
    """Bytes of a rank, line by line, while `phase` lasts: all roles that share it."""
    workload = workload.at(rank)
    mine = [(one, pool) for one, pool in _homes(candidate) if rank in pool.ranks]
    train = next((one.layout for one, _ in mine if one.role == Role.ACTOR_TRAIN), None)
    lines: list[Line] = []
    stage = 0
    for placement, pool in mine:
        place = _stage(placement.layout, rank - pool.first_rank)
        lines += role_lines(workload, placement, phase, place, train)
        stage = max(stage, place)
    if phase == "reshard" and rank in _apart(candidate):
        layout, shape = candidate.rollout, role_shape(workload, Role.ACTOR_ROLLOUT)
        staging = moved_apart(workload, shape, layout).staging
        lines.append(Line(module="switch", kind=Kind.SWITCH, bytes=staging))
    reserve = float(workload.hardware.reserve_bytes)
    lines.append(Line(module="process", kind=Kind.RESERVE, bytes=reserve))
    return Account(phase=phase, moment="fullest", stage=stage, lines=tuple(lines), rank=rank)


def peak_account(
    workload: Workload, candidate: Candidate, phase: str, pool: ResourcePool | None = None
) -> Account:
    """The account of the fullest rank while `phase` lasts, of all ranks or those of a pool."""
    ranks = dict.fromkeys(
        rank
        for one in ([pool] if pool else candidate.pools)
        for rank in ranks_to_check(candidate, one)
    )
    return fullest(phase_account(workload, candidate, phase, rank) for rank in ranks)


def verdict_of(workload: Workload, candidate: Candidate) -> Verdict:
    """Whether the fullest rank fits in the fullest phase, on the device and in its host."""
    names = [phase.name for phase in phases_of(workload.job) if _adds(workload, phase.name)]
    found = []
    for pool in candidate.pools:
        here = workload.at(pool.first_rank)
        accounts = [peak_account(workload, candidate, name, pool) for name in names]
        device = verdict(accounts, float(here.hardware.memory_bytes))
        found.append(device if device.breaks else _host_verdict(here, accounts) or device)
    return max(found, key=lambda one: (not one.fits, one.account.total / one.capacity_bytes))


def _adds(workload: Workload, phase: str) -> bool:
    """Whether a phase holds anything beyond what lasts."""
    works = working_role(workload, phase) is not None
    return works or phase == "reshard" or phase in GENERATES


def _stage(layout: ParallelLayout, rank: int) -> int:
    return layout.coordinates(rank)["pp"] if layout.pp > 1 else 0


def ranks_to_check(candidate: Candidate, pool: ResourcePool) -> list[int]:
    """The first rank of each pipeline stage that may be the fullest: the ends, and the second."""
    ranks = set()
    for placement, home in _homes(candidate):
        if home == pool:
            stages = {min(1, placement.layout.pp - 1), placement.layout.pp - 1} - {0}
            ranks |= {pool.first_rank + placement.layout.rank_at(pp=one) for one in stages}
            ranks.add(pool.first_rank)
    return sorted(ranks)


def _apart(candidate: Candidate) -> set[int]:
    """The ranks of a switch between two pools; none when actor and rollout share one."""
    pools = {one.role: pool for one, pool in _homes(candidate)}
    ends = [pools[one] for one in (Role.ACTOR_TRAIN, Role.ACTOR_ROLLOUT) if one in pools]
    return {rank for pool in ends for rank in pool.ranks} if len(set(ends)) == 2 else set()


def _homes(candidate: Candidate) -> Iterator[tuple[Placement, ResourcePool]]:
    pools = {pool.name: pool for pool in candidate.pools}
    for placement in candidate.placements:
        yield placement, pools[placement.pool]


def _host_verdict(workload: Workload, accounts: list[Account]) -> Verdict | None:
    """The verdict on host memory when a rank's share of its node is too small; else None."""
    account = max(accounts, key=lambda one: one.host_total)
    room = workload.hardware.host_bytes / workload.ranks_per_node
    lines = [line for line in account.lines if line.kind == Kind.HOST]
    if account.host_total <= room:
        return None
    return Verdict(account=account, capacity_bytes=room, breaks=lines[-1])
