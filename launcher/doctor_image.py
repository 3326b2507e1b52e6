"""Which image suits a plan and why, and how it is built and entered at each kind of site."""

from __future__ import annotations

from pathlib import Path

from plans.hardware import read_hardware
from plans.load import make_plan
from plans.plan import read_plan
from plans.software import Software, read_software
from plans.source import PlanError

DOCKER_DEVICES = {
    "cuda": "--gpus all",
    "rocm": "--device /dev/kfd --device /dev/dri --group-add video --group-add render",
    "cpu": "",
}
APPTAINER_DEVICES = {"cuda": "--nv", "rocm": "--rocm", "cpu": ""}


def hardware_of(job: Path | None, hardware: str | None) -> str:
    """The hardware of a job file or plan.json, or the one that was named."""
    if hardware is not None:
        return read_hardware(hardware).name
    assert job is not None
    plan = read_plan(job) if job.suffix == ".json" else make_plan(job)
    return plan.hardware


def choose(hardware: str) -> tuple[Software, list[str]]:
    """The row for a kind of hardware, and why it and no other; PlanError when there is none."""
    platform = read_hardware(hardware).platform
    chosen: Software | None = None
    reasons = []
    for row in read_software():
        if row.platform != platform:
            reasons.append(f"{row.name}: for {row.platform}, {hardware} is {platform}")
        elif hardware not in row.gpus:
            reasons.append(f"{row.name}: not for {hardware}, but for {', '.join(row.gpus)}")
        elif chosen is None:
            chosen = row
        else:
            reasons.append(f"{row.name}: also fits; {chosen.name} stands before it")
    if chosen is None:
        raise PlanError(f"no row of plans/software.yaml serves {hardware}")
    return chosen, reasons


def text_of(hardware: str) -> list[str]:
    """The choice on a screen."""
    row, others = choose(hardware)
    versions = ", ".join(f"{name} {version}" for name, version in row.packages.items())
    driver = f"driver   {row.driver} or newer, for CUDA {row.runtime}" if row.driver else ""
    return [
        f"{hardware}: {row.name}",
        f"base     {row.base}",
        f"holds    Python {', '.join(row.python)}, {versions}",
        *([driver] if driver else []),
        f"source   {row.source}",
        f"verified {row.verified}",
        "",
        *(f"not {reason}" for reason in others),
        "",
        *commands(row),
    ]


def commands(row: Software) -> list[str]:
    """How the image is built, and a first look inside it, for docker, apptainer, pyxis and venv."""
    tag, here = f"rlplan:{row.name}", '"$PWD"'
    devices = DOCKER_DEVICES[row.platform]
    limits = "" if row.platform == "cpu" else "--shm-size=16g --ulimit memlock=-1"
    docker = f"docker run --rm {devices} {limits} -v {here}:{here} -w {here} {tag} rlplan doctor"
    arguments = f"--build-arg BASE={row.base} --build-arg SOFTWARE={row.name} "
    build = arguments if row.platform == "rocm" else ""
    lines = [
        "docker     " + f"docker build {build}-f {row.recipe} -t {tag} .",
        "           " + " ".join(docker.split()),
    ]
    if row.definition:
        entered = f"apptainer exec {APPTAINER_DEVICES[row.platform]} --bind {here}"
        lines += [
            "apptainer  " + f"apptainer build {build}rlplan.sif {row.definition}",
            "           " + f"{entered} rlplan.sif rlplan doctor",
        ]
    lines += [
        "pyxis      " + f"enroot import -o rlplan.sqsh dockerd://{tag}",
        "           "
        + f"srun --container-image={here}/rlplan.sqsh --container-mounts={here} rlplan doctor",
        "venv       " + _venv(row),
    ]
    return lines


def _venv(row: Software) -> str:
    return {
        "cpu": "bash install.sh",
        "cuda": "python3.12 -m venv .venv && .venv/bin/pip install -c constraints/cuda.txt "
        "'.[cuda]' mpich",
        "rocm": "none: torch and vLLM for ROCm come with the image",
    }[row.platform]
