"""What a host must have before a run is worth starting: each check alone, with its remedy.

Pure functions from facts to findings, so that `rlplan doctor` says before the queue what a
rank would say in the job. Each kind of failure has its own exit code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Literal

from plans.platform import MASKS, device_mask
from plans.record import ExitCode
from plans.software import best_row, older, read_software
from plans.source import UserError
from plans.units import bytes_text
from plans.values import frozen
from runtime.host import HostFacts
from runtime.needs import Needs

State = Literal["ok", "warning", "failure"]
# Below this, opening the files of a run and one socket a peer fails on large worlds.
OPEN_FILES = 65_536


@frozen
class Finding:
    """What a check found: 'memlock', how bad, in words, what to do, and the exit code."""

    check: str
    state: State
    text: str
    remedy: str = ""
    code: int = 0

    def __str__(self) -> str:
        label = {"ok": "ok  ", "warning": "warn", "failure": "FAIL"}[self.state]
        return f"{label}  {self.text}" + (f": {self.remedy}" if self.remedy else "")


@frozen
class Surroundings:
    """All that the checks of one host look at."""

    platform: Literal["cpu", "cuda", "rocm"]
    host: HostFacts
    needs: Needs
    environment: Mapping[str, str]
    versions: Mapping[str, str]
    disk_bytes: int
    missing: tuple[Path, ...]


def check_host(surroundings: Surroundings, skip: Iterable[str] = ()) -> tuple[Finding, ...]:
    """The findings of every check of one host that is not skipped, in a fixed order."""
    left_out = set(skip)
    return tuple(check(surroundings) for name, check in CHECKS.items() if name not in left_out)


def failures(findings: Iterable[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.state == "failure"]


def check_devices(here: Surroundings) -> Finding:
    """As many GPUs as the plan has ranks on a host."""
    count, wanted = len(here.host.gpus), here.needs.devices
    if here.platform == "cpu" or count >= wanted:
        text = (
            f"{count} GPUs, {here.needs.whose} needs {wanted}"
            if wanted
            else "the CPU is the device"
        )
        return Finding(check="devices", state="ok", text=text)
    return Finding(
        check="devices",
        state="failure",
        text=f"{count} GPUs in /sys, the plan has {wanted} ranks on a host",
        remedy="ask Slurm for --gpus-per-node, start the container with --gpus all (NVIDIA) or "
        "--device /dev/kfd --device /dev/dri (AMD), or plan for this hardware",
        code=ExitCode.DEVICES,
    )


def check_masks(here: Surroundings) -> Finding:
    """The variables that hide devices agree, and leave enough of them."""
    given = {name: here.environment[name] for name in sorted(MASKS) if here.environment.get(name)}
    told = ", ".join(f"{name}={value}" for name, value in given.items())
    if here.platform == "cpu":
        return Finding(check="masks", state="ok", text="no device is hidden")
    try:
        device_mask(here.environment, here.platform, max(0, here.needs.devices - 1))
    except UserError as error:
        return Finding(
            check="masks",
            state="failure",
            text=str(error),
            remedy="set none of them in a job script; on AMD, gres.conf with Flags=amd_gpu_env "
            "keeps Slurm from setting two",
            code=ExitCode.MASKS,
        )
    return Finding(check="masks", state="ok", text=told or "no device is hidden")


def check_versions(here: Surroundings) -> Finding:
    """Driver and packages are of one row of the matrix."""
    found = best_row(here.platform, here.versions, read_software())
    if found is None:
        return Finding(check="versions", state="ok", text="no versions are known for this platform")
    row, wrong = found
    driver = here.host.driver
    if row.driver and driver and older(driver, row.driver):
        return Finding(
            check="versions",
            state="failure",
            text=f"driver {driver} is too old for CUDA {row.runtime}, which needs {row.driver}",
            remedy="ask for a newer driver, or use torch and vLLM built for an older CUDA",
            code=ExitCode.VERSIONS,
        )
    if not wrong:
        names = ", ".join(f"{name} {one}" for name, one in here.versions.items() if name != "mpi")
        return Finding(check="versions", state="ok", text=f"{row.name}: {names}")
    told = ", ".join(f"{one.package} {one.found} (known: {one.wanted})" for one in wrong)
    far = any(not one.close for one in wrong)
    return Finding(
        check="versions",
        state="failure" if far else "warning",
        text=f"{told} is not in row {row.name} of plans/software.yaml",
        remedy=f"install as {row.source} says" if far else "",
        code=ExitCode.VERSIONS if far else ExitCode.OK,
    )


def check_shared_memory(here: Surroundings) -> Finding:
    """Room in /dev/shm, through which ranks of a host exchange."""
    return _enough(
        "shared_memory",
        "/dev/shm",
        here.host.shared_memory_bytes,
        here.needs.shared_memory_bytes,
        here.needs.whose,
        "start the container with --shm-size=16g or --ipc=host (docker), or bind /dev/shm "
        "(apptainer --bind /dev/shm)",
        ExitCode.SHARED_MEMORY,
    )


def check_locked_memory(here: Surroundings) -> Finding:
    """Memory that network cards may write to must be locked."""
    limit, wanted = here.host.locked_memory_bytes, here.needs.locked_memory_bytes
    if not wanted or not any(nic.active for nic in here.host.nics):
        text = "memlock does not matter: no RDMA between hosts"
        return Finding(check="locked_memory", state="ok", text=text)
    if limit is None:
        return Finding(check="locked_memory", state="ok", text="memlock unlimited")
    return _enough(
        "locked_memory",
        "memlock",
        limit,
        wanted,
        here.needs.whose,
        "ulimit -l unlimited; under Slurm PropagateResourceLimitsExcept=MEMLOCK and "
        "LimitMEMLOCK=infinity for slurmd, in docker --ulimit memlock=-1",
        ExitCode.LOCKED_MEMORY,
    )


def check_host_memory(here: Surroundings) -> Finding:
    """Memory of the host for the ranks on it."""
    return _enough(
        "host_memory",
        "memory of the host",
        here.host.memory_bytes,
        here.needs.host_memory_bytes,
        here.needs.whose,
        "ask for whole nodes (#SBATCH --mem=0 --exclusive), or raise the container's limit",
        ExitCode.HOST_MEMORY,
    )


def check_disk(here: Surroundings) -> Finding:
    """Room for the checkpoints that are kept, one more that is being written, and the export."""
    return _enough(
        "disk",
        "disk of the run folder",
        here.disk_bytes,
        here.needs.disk_bytes,
        here.needs.whose,
        "submit from a larger file system, or keep fewer checkpoints (checkpoint.keep)",
        ExitCode.DISK,
    )


def check_paths(here: Surroundings) -> Finding:
    """The model and the data of the job are there, as this host sees them."""
    if not here.missing:
        return Finding(check="paths", state="ok", text="model and data are readable")
    names = ", ".join(map(str, here.missing))
    return Finding(
        check="paths",
        state="failure",
        text=f"not readable here: {names}",
        remedy="is the file system mounted on this node, or bound into the container?",
        code=ExitCode.MISSING_INPUT,
    )


def check_open_files(here: Surroundings) -> Finding:
    """Files and sockets a process may open; a warning, since small worlds need few."""
    limit = here.host.open_files
    if limit is None or limit >= OPEN_FILES or not here.needs.locked_memory_bytes:
        return Finding(check="open_files", state="ok", text=f"{limit or 'unlimited'} open files")
    return Finding(
        check="open_files",
        state="warning",
        text=f"{limit} open files, large worlds want {OPEN_FILES}",
        remedy=f"ulimit -n {OPEN_FILES}",
    )


def check_numa_balancing(here: Surroundings) -> Finding:
    """AMD's GPUs may hang while the kernel moves pages between NUMA nodes (ROCm documentation)."""
    if here.platform != "rocm" or not here.host.numa_balancing:
        return Finding(check="numa_balancing", state="ok", text="NUMA balancing does not matter")
    return Finding(
        check="numa_balancing",
        state="warning",
        text="kernel.numa_balancing is on, with which MI300X may hang",
        remedy="ask for sysctl kernel.numa_balancing=0",
    )


def _enough(
    check: str, what: str, found: int, wanted: int, whose: str, remedy: str, code: ExitCode
) -> Finding:
    text = f"{what} {bytes_text(found)}, {whose} needs {bytes_text(wanted)}"
    if found >= wanted:
        return Finding(check=check, state="ok", text=text)
    return Finding(check=check, state="failure", text=text, remedy=remedy, code=code)


CHECKS: dict[str, Callable[[Surroundings], Finding]] = {
    "devices": check_devices,
    "masks": check_masks,
    "versions": check_versions,
    "shared_memory": check_shared_memory,
    "locked_memory": check_locked_memory,
    "host_memory": check_host_memory,
    "disk": check_disk,
    "paths": check_paths,
    "open_files": check_open_files,
    "numa_balancing": check_numa_balancing,
}
