"""Small /sys trees of known nodes, in the shape the kernel gives them.

MI250X as LUMI-G and Frontier document it (GPU to NUMA node and cores), an MI300X and an H100
node of two sockets with a network card behind the switch of each GPU, and a virtual machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Slot:
    """A card on its way from the root complex: bridge names, then its own address."""

    way: tuple[str, ...]
    numa: int

    @property
    def address(self):
        return self.way[-1]


def write_host(root, *, vendor, kind, gpus, nics=(), cores=(), driver="", identities=()):
    """A tree with these GPUs [Slot], NICs [(name, Slot, state, rate)] and cores by NUMA node."""
    for number, slot in enumerate(gpus):
        place = write_card(root, slot)
        (place / "vendor").write_text(f"{vendor}\n")
        (place / "class").write_text(f"{kind}\n")
        if identities:
            write_identity(root, place, vendor, identities[number])
    for name, slot, state, rate in nics:
        place = write_card(root, slot)
        port = place / "infiniband" / name / "ports" / "1"
        port.mkdir(parents=True)
        (port / "state").write_text(f"{state}\n")
        (port / "rate").write_text(f"{rate} Gb/sec (4X NDR)\n")
        (port / "link_layer").write_text("InfiniBand\n")
        (place / "infiniband" / name / "device").symlink_to(place)
        link = root / "sys/class/infiniband" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(place / "infiniband" / name)
    for number, text in enumerate(cores):
        node = root / f"sys/devices/system/node/node{number}"
        node.mkdir(parents=True)
        (node / "cpulist").write_text(f"{text}\n")
    if driver:
        module = root / "sys/module" / ("nvidia" if vendor == "0x10de" else "amdgpu")
        module.mkdir(parents=True)
        (module / "version").write_text(f"{driver}\n")
    (root / "dev/shm").mkdir(parents=True, exist_ok=True)
    return root


def write_card(root: Path, slot: Slot) -> Path:
    place = (root / "sys/devices").joinpath(*slot.way)
    place.mkdir(parents=True, exist_ok=True)
    (place / "numa_node").write_text(f"{slot.numa}\n")
    link = root / "sys/bus/pci/devices" / slot.address
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(place)
    return place


def write_identity(root, place, vendor, identity):
    if vendor == "0x1002":
        (place / "unique_id").write_text(f"{identity}\n")
        return
    folder = root / "proc/driver/nvidia/gpus" / place.name
    folder.mkdir(parents=True)
    (folder / "information").write_text(f"Model: \t NVIDIA\nGPU UUID: \t GPU-{identity}\n")


def mi250x(root):
    """Eight GCDs; the order of the GPUs is not that of the NUMA nodes."""
    buses = ["c1", "c6", "c9", "ce", "d1", "d6", "d9", "de"]
    numas = [3, 3, 1, 1, 0, 0, 2, 2]
    gpus = [
        Slot((f"pci0000:{bus[0]}0", f"0000:{bus[0]}0:01.1", f"0000:{bus}:00.0"), numa)
        for bus, numa in zip(buses, numas, strict=True)
    ]
    cores = [f"{16 * n}-{16 * n + 15},{64 + 16 * n}-{64 + 16 * n + 15}" for n in range(4)]
    ids = [f"{number:016x}" for number in range(8)]
    return write_host(
        root, vendor="0x1002", kind="0x038000", gpus=gpus, cores=cores, identities=ids
    )


def _behind_switches(buses):
    """(GPU, NIC) slots that share a switch, four switches a socket."""
    pairs = []
    for number, bus in enumerate(buses):
        switch = (
            f"pci0000:{bus[0]}0",
            f"0000:{bus[0]}0:0{number}.1",
            f"0000:{bus[0]}{number}:00.0",
        )
        gpu = Slot((*switch, f"0000:{bus}:00.0"), number // 4)
        nic = Slot((*switch, f"0000:{bus[0]}f:0{number}.0"), number // 4)
        pairs.append((gpu, nic))
    return pairs


def mi300x(root):
    """Eight OAM modules, eight 400 Gb/s cards named against the order, one 100 Gb/s for storage."""
    pairs = _behind_switches(["05", "26", "46", "65", "85", "a6", "c6", "e5"])
    nics = [(f"rdma{7 - number}", nic, "4: ACTIVE", 400) for number, (_, nic) in enumerate(pairs)]
    storage = Slot(("pci0000:f0", "0000:f1:00.0"), 1)
    return write_host(
        root,
        vendor="0x1002",
        kind="0x120000",
        gpus=[gpu for gpu, _ in pairs],
        nics=[*nics, ("rdma_storage", storage, "4: ACTIVE", 100)],
        cores=["0-47,96-143", "48-95,144-191"],
        driver="6.16.6",
    )


def h100(root):
    """Eight SXM modules with a card each; one port is down."""
    pairs = _behind_switches(["1b", "43", "52", "61", "9d", "c3", "d1", "df"])
    nics = [
        (f"mlx5_{number}", nic, "1: DOWN" if number == 3 else "4: ACTIVE", 400)
        for number, (_, nic) in enumerate(pairs)
    ]
    ids = [f"{number:08x}-0000-1111-2222-333344445555" for number in range(8)]
    return write_host(
        root,
        vendor="0x10de",
        kind="0x030200",
        gpus=[gpu for gpu, _ in pairs],
        nics=nics,
        cores=["0-55", "56-111"],
        driver="570.86.15",
        identities=ids,
    )


def virtual(root):
    """One GPU handed into a virtual machine, which tells no NUMA node."""
    gpu = Slot(("pci0000:00", "0000:00:05.0"), -1)
    return write_host(
        root, vendor="0x10de", kind="0x030200", gpus=[gpu], cores=["0-15"], driver="580.159.04"
    )
