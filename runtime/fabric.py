"""The network between hosts as a host shows it, and the variables that follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from plans.fabrics import Fabric, settings
from runtime.affinity import hca_list
from runtime.host import read_nics

# Names that drivers give their devices in /sys/class/infiniband.
DEVICE_NAMES: tuple[tuple[str, Fabric], ...] = (
    ("efa", "efa"),
    ("rdmap", "efa"),
    ("ionic", "ainic"),
)


def fabric_of(root: Path = Path("/")) -> Fabric:
    """The fastest kind of network of this host; 'none' where only TCP is left."""
    if any((root / "sys/class/cxi").glob("cxi*")):
        return "slingshot"
    active = [nic for nic in read_nics(root) if nic.active]
    for start, fabric in DEVICE_NAMES:
        if any(nic.name.startswith(start) for nic in active):
            return fabric
    if not active:
        return "none"
    fastest = max(active, key=lambda nic: nic.gigabits_per_second)
    return "infiniband" if fastest.layer == "InfiniBand" else "roce"


def network_settings(user: Mapping[str, str], root: Path = Path("/")) -> dict[str, str]:
    """What NCCL is told of the network of this host, where nobody has told it already."""
    found = settings(fabric_of(root), user)
    cards = hca_list(read_nics(root))
    if cards and "NCCL_IB_HCA" not in user:
        found["NCCL_IB_HCA"] = cards
    return found
