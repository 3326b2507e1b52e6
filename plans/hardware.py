"""HardwareSpec: what one kind of machine can do, from `plans/hardware/<name>.yaml`.

Every number in those files has its source in a comment beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from plans.source import SpecError, read_yaml, suggestion
from plans.units import GIB, GIGA, TERA

FOLDER = Path(__file__).parent / "hardware"
MICROSECOND = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """What a device gets of a connection in one direction, achieved, and the cost of a message."""

    gb_per_second: float
    latency_microseconds: float

    @property
    def bytes_per_second(self) -> float:
        return self.gb_per_second * GIGA

    @property
    def latency_seconds(self) -> float:
        return self.latency_microseconds * MICROSECOND


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """How devices of a node and nodes are joined; rates of the datasheet, one direction.

    A switch gives a device its whole link towards any peer, a mesh only the links to it.
    """

    kind: Literal["nvswitch", "mesh", "pcie", "host"]
    link_gb_per_second: float
    nics_per_node: int
    nic_gb_per_second: float
    numa_per_node: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Billing:
    """What a cluster charges for an hour of one device, in its own unit."""

    unit: str
    per_device_hour: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HardwareSpec:
    """One kind of node and its devices; rates are per device.

    `train_share` and `prefill_share` are the achieved share of `peak_tflops` when there is
    enough work, `memory_share` that of the memory bandwidth. `band` multiplies a planned
    duration into the interval that is stated with it.
    """

    title: str
    platform: Literal["cpu", "cuda", "rocm"]
    devices_per_node: int
    oversubscribe: bool
    cores_per_device: int
    memory_gib: float
    precision: Literal["fp32", "bf16"]
    peak_tflops: dict[str, float]
    train_share: float
    prefill_share: float
    memory_gb_per_second: float
    memory_share: float
    inner: Link
    outer: Link
    topology: Topology
    layer_microseconds: float
    decode_layer_microseconds: float
    decode_reduce_microseconds: float
    sampling_microseconds: float
    switch_microseconds: float
    start_seconds: float
    reserve_gib: float
    disk_gb_per_second: float
    kv_block_tokens: int
    billing: Billing
    node_failure_hours: float
    deadline_factor: float
    deadline_floor_seconds: float
    calibration: Literal["datasheet", "published", "measured"]
    band: tuple[float, float]
    name: str = ""

    @property
    def memory_bytes(self) -> int:
        return int(self.memory_gib * GIB)

    @property
    def reserve_bytes(self) -> int:
        return int(self.reserve_gib * GIB)

    @property
    def memory_bytes_per_second(self) -> float:
        return self.memory_gb_per_second * GIGA * self.memory_share

    @property
    def device(self) -> str:
        """What a person calls one device: 'GPU', or 'rank' where ranks share the cores."""
        return "rank" if self.platform == "cpu" else "GPU"

    def flops_per_second(self, precision: str) -> float:
        return self.peak_tflops[precision] * TERA


def known_hardware() -> list[str]:
    """The names a job file may use, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_hardware(name: str) -> HardwareSpec:
    """The hardware of that name; SpecError listing the known names when there is none."""
    known = known_hardware()
    if name not in known:
        hint = suggestion(name, known)
        message = f"{name!r} is not known; known: {', '.join(known)}{hint}"
        raise SpecError(message, at=("cluster", "hardware"))
    data = read_yaml(FOLDER / f"{name}.yaml").data
    return TypeAdapter(HardwareSpec).validate_python({**data, "name": name})
