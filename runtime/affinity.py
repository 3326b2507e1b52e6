"""Which cores and network cards are near a rank's GPU, and binding the rank to them.

A rank on the wrong socket reaches its GPU and its network card over the link between the
sockets. Ranks bind themselves: Slurm's masks need whole nodes and a task plug-in that many
sites do not have, and a container forgets them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from plans.values import frozen
from runtime.host import Card, Gpu, Nic, cores_of


@frozen
class Affinity:
    """What is near a GPU: its NUMA node and the cores of it that this process may use, a NIC."""

    numa: int | None
    cores: frozenset[int]
    nic: str | None
    reason: str


def affinity_of(
    gpu: Gpu, nics: Sequence[Nic], allowed: frozenset[int], root: Path = Path("/")
) -> Affinity:
    """Where a process of this GPU belongs; `reason` says why it is not bound, or ''."""
    nic = nearest_nic(gpu, nics)
    name = nic.name if nic else None
    if gpu.numa is None:
        reason = f"{gpu.address} tells no NUMA node, as in a virtual machine"
        return Affinity(numa=None, cores=frozenset(), nic=name, reason=reason)
    cores = cores_of(root, gpu.numa) & allowed
    reason = ""
    if not cores:
        reason = f"none of the cores of NUMA node {gpu.numa} is given to this process"
    elif cores == allowed:
        reason = "already on the cores of its NUMA node"
    return Affinity(numa=gpu.numa, cores=cores, nic=name, reason=reason)


def nearest_nic(gpu: Card, nics: Sequence[Nic]) -> Nic | None:
    """The active network card with the longest way in common with a GPU, the fastest of several.

    Without a common switch, one of the GPU's NUMA node; None when no card is active.
    """
    usable = usable_nics(nics)
    if not usable:
        return None
    return max(
        usable,
        key=lambda nic: (
            shared_way(gpu, nic),
            gpu.numa is not None and nic.numa == gpu.numa,
            nic.gigabits_per_second,
        ),
    )


def shared_way(one: Card, other: Card) -> int:
    """How many bridges two PCI devices have in common, from the root complex on."""
    steps = 0
    for mine, theirs in zip(one.path[:-1], other.path[:-1], strict=False):
        if mine != theirs:
            break
        steps += 1
    return steps


def usable_nics(nics: Sequence[Nic]) -> list[Nic]:
    """The active ports at the highest rate: slower ones belong to storage or management."""
    active = [nic for nic in nics if nic.active]
    best = max((nic.gigabits_per_second for nic in active), default=0.0)
    return [nic for nic in active if nic.gigabits_per_second == best]


def hca_list(nics: Sequence[Nic]) -> str | None:
    """The value of NCCL_IB_HCA, where NCCL would else take cards that are not for it.

    None when it may have them all: '=' makes the names exact, since mlx5_1 also means mlx5_10.
    """
    usable = usable_nics(nics)
    active = [nic for nic in nics if nic.active]
    if not usable or len(usable) == len(active):
        return None
    return "=" + ",".join(sorted({nic.name for nic in usable}))


def bind(affinity: Affinity) -> bool:
    """Keep this process on its cores, and the threads it starts from now on; whether it moved."""
    if affinity.reason:
        return False
    os.sched_setaffinity(0, affinity.cores)
    return True
