"""What a host is: its GPUs, network cards and NUMA nodes, its memory, and the limits of a process.

Read from /proc and /sys alone, without a vendor's tool or library. `root` stands for '/', so
that a recorded tree answers like a machine.
"""

from __future__ import annotations

import os
import re
import resource
from pathlib import Path

from plans.values import frozen

NVIDIA, AMD = "0x10de", "0x1002"
# PCI classes of GPUs: VGA and 3D controllers (NVIDIA), displays and accelerators (AMD Instinct).
GPU_CLASSES = {NVIDIA: ("0x0300", "0x0302"), AMD: ("0x0380", "0x1200")}
UNLIMITED = resource.RLIM_INFINITY
CGROUP_MEMORY = (
    ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.current"),
    (
        "sys/fs/cgroup/memory/memory.limit_in_bytes",
        "sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)
DRIVER_FILES = {NVIDIA: "sys/module/nvidia/version", AMD: "sys/module/amdgpu/version"}


@frozen
class Card:
    """A PCI device: its address such as 0000:1b:00.0, its NUMA node, and its way from the root."""

    address: str
    numa: int | None
    path: tuple[str, ...]


@frozen
class Gpu(Card):
    """A GPU with what identifies it to torch: NVIDIA's UUID, AMD's unique id; '' if not told."""

    vendor: str
    identity: str = ""


@frozen
class Nic(Card):
    """A port of an RDMA device: mlx5_0 with 400 Gb/s, InfiniBand or Ethernet (RoCE)."""

    name: str
    active: bool
    gigabits_per_second: float
    layer: str


@frozen
class HostFacts:
    """One host. Memory is what a new process could take; None is not told, or no limit."""

    gpus: tuple[Gpu, ...]
    nics: tuple[Nic, ...]
    driver: str
    shared_memory_bytes: int
    memory_bytes: int
    locked_memory_bytes: int | None
    open_files: int | None
    numa_balancing: bool


def read_host(root: Path = Path("/")) -> HostFacts:
    """The facts of this host; the limits are those of this process."""
    gpus = read_gpus(root)
    locked = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return HostFacts(
        gpus=gpus,
        nics=read_nics(root),
        driver=_text(root / DRIVER_FILES[gpus[0].vendor]) if gpus else "",
        shared_memory_bytes=free_bytes(root / "dev/shm"),
        memory_bytes=_memory(root),
        locked_memory_bytes=None if locked == UNLIMITED else locked,
        open_files=None if files == UNLIMITED else files,
        numa_balancing=_text(root / "proc/sys/kernel/numa_balancing") not in ("", "0"),
    )


def read_gpus(root: Path = Path("/")) -> tuple[Gpu, ...]:
    """The GPUs of a host by PCI address: the order of CUDA_DEVICE_ORDER=PCI_BUS_ID."""
    found = []
    for device in _entries(root / "sys/bus/pci/devices"):
        vendor, kind = _text(device / "vendor"), _text(device / "class")[:6]
        if kind in GPU_CLASSES.get(vendor, ()):
            card = _card(root, device)
            identity = _identity(root, device, vendor)
            found.append(
                Gpu(
                    address=card.address,
                    numa=card.numa,
                    path=card.path,
                    vendor=vendor,
                    identity=identity,
                )
            )
    return tuple(sorted(found, key=lambda gpu: gpu.address))


def read_nics(root: Path = Path("/")) -> tuple[Nic, ...]:
    """The RDMA ports of a host, by name."""
    found = []
    for device in _entries(root / "sys/class/infiniband"):
        card = _card(root, device / "device")
        for port in _entries(device / "ports"):
            rate = re.match(r"[\d.]+", _text(port / "rate"))
            found.append(
                Nic(
                    address=card.address,
                    numa=card.numa,
                    path=card.path,
                    name=device.name,
                    active="ACTIVE" in _text(port / "state"),
                    gigabits_per_second=float(rate[0]) if rate else 0.0,
                    layer=_text(port / "link_layer"),
                )
            )
    return tuple(sorted(found, key=lambda nic: nic.name))


def cores_of(root: Path, numa: int) -> frozenset[int]:
    """The logical cores of a NUMA node; empty when the host does not tell."""
    return parse_cores(_text(root / f"sys/devices/system/node/node{numa}/cpulist"))


def parse_cores(text: str) -> frozenset[int]:
    """{0, 1, 2, 64} from '0-2,64'."""
    cores: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        cores |= set(range(int(first), int(last or first) + 1))
    return frozenset(cores)


def free_bytes(path: Path) -> int:
    """What may still be written on the file system of a path, or of its nearest parent."""
    while not path.exists():
        path = path.parent
    place = os.statvfs(path)
    return place.f_bavail * place.f_frsize


def _memory(root: Path) -> int:
    """What the kernel calls available, and no more than the cgroup of a container leaves."""
    told = re.search(r"MemAvailable:\s+(\d+) kB", _text(root / "proc/meminfo"))
    free = int(told[1]) * 1024 if told else 0
    for limit, used in CGROUP_MEMORY:
        most, now = _text(root / limit), _text(root / used)
        if most.isdigit() and now.isdigit():
            free = min(free, max(0, int(most) - int(now)))
    return free


def _card(root: Path, device: Path) -> Card:
    """The PCI device behind a link of /sys; the path starts at the root complex."""
    place = device.resolve()
    numa = _text(place / "numa_node")
    parts = place.relative_to(root.resolve()).parts
    return Card(
        address=place.name,
        numa=int(numa) if numa.isdigit() else None,
        path=tuple(part for part in parts if ":" in part),
    )


def _identity(root: Path, device: Path, vendor: str) -> str:
    if vendor == AMD:
        return _text(device / "unique_id")
    information = _text(root / "proc/driver/nvidia/gpus" / device.name / "information")
    uuid = re.search(r"GPU UUID:\s+GPU-(\S+)", information)
    return uuid[1] if uuid else ""


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _text(path: Path) -> str:
    """The text of a small file of the kernel, '' where it is missing or closed to us."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
