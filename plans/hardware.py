"""HardwareSpec: what one kind of machine can do, from `plans/hardware/<name>.yaml`.

Every number in those files has its source in a comment beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from plans.source import Location, SpecError, read_yaml, suggestion
from plans.times.calibration import Calibration, Level
from plans.times.device import Device, device, read_devices
from plans.units import GIB, TERA
from plans.values import frozen

FOLDER = Path(__file__).parent / "hardware"


@frozen
class Topology:
    """What a node has beside its devices; how those are joined stands with the device."""

    nics_per_node: int
    numa_per_node: int


@frozen
class Stacks:
    """The calibrations whose rates hold here: of the two engines, and of a step's overheads."""

    train: str
    generate: str
    step: str


@frozen
class Billing:
    """What a cluster charges for an hour of one device, in its own unit."""

    unit: str
    per_device_hour: float


@frozen
class HardwareSpec:
    """One kind of node and its devices.

    `memory_gib` is what a process may have of one device, `host_gib` a whole node's; `reserve`
    is kept for contexts, collectives' buffers and fragments; `graph_gib` the rollout's device
    graphs; `first_step_factor` how much longer the first step of a job takes;
    `wake_ms_per_gb` what mapping memory back costs that a sleeping engine gave up.
    `level` is that at which the calibrations of its stacks are read, `own` a user's in place of
    the shipped one of its stack.
    """

    title: str
    chip: Device
    platform: Literal["cpu", "cuda", "rocm"]
    devices_per_node: int
    oversubscribe: bool
    cores_per_device: int
    host_gib: float
    memory_gib: float
    precision: Literal["fp32", "bf16"]
    stacks: Stacks
    topology: Topology
    switch_microseconds: float
    start_seconds: float
    first_step_factor: float
    reserve_gib: float
    graph_gib: float
    wake_ms_per_gb: float
    disk_gb_per_second: float
    kv_block_tokens: int
    billing: Billing
    node_failure_hours: float
    deadline_factor: float
    deadline_floor_seconds: float
    name: str = ""
    level: Level = "published"
    own: Calibration | None = None

    @property
    def memory_bytes(self) -> int:
        return int(self.memory_gib * GIB)

    @property
    def reserve_bytes(self) -> int:
        return int(self.reserve_gib * GIB)

    @property
    def graph_bytes(self) -> int:
        return int(self.graph_gib * GIB)

    @property
    def host_bytes(self) -> int:
        return int(self.host_gib * GIB)

    @property
    def device(self) -> str:
        """What a person calls one device: 'GPU', or 'rank' where ranks share the cores."""
        return "rank" if self.platform == "cpu" else "GPU"

    def flops_per_second(self, precision: str) -> float:
        """The dense peak; 0 where the device's file has none."""
        peak: float = getattr(self.chip, precision)
        return peak * TERA


def known_hardware() -> list[str]:
    """The names a job file may use, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_hardware(name: str, at: Location = ("cluster", "hardware")) -> HardwareSpec:
    """The hardware of that name; SpecError at `at` with the known names when there is none."""
    known = known_hardware()
    if name not in known:
        hint = suggestion(name, known)
        message = f"{name!r} is not known; known: {', '.join(known)}{hint}"
        raise SpecError(message, at=at)
    data = read_yaml(FOLDER / f"{name}.yaml").data
    parts = {
        "chip": device(data["chip"], read_devices()),
        "stacks": Stacks(**data["stacks"]),
        "topology": Topology(**data["topology"]),
        "billing": Billing(**data["billing"]),
    }
    return HardwareSpec(**{**data, **parts, "name": name})
