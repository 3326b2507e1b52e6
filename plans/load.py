"""From the path of a job file to its plan: the one place where a job's files are read."""

from __future__ import annotations

from pathlib import Path

from plans.hardware import HardwareSpec, read_hardware
from plans.model import ModelSpec, read_model
from plans.plan import Plan
from plans.search import Search, search
from plans.source import SpecError, UserError, read_yaml
from plans.spec import JobSpec, parse


def make_plan(path: str | Path) -> Plan:
    """The plan of the job file at `path`; UserError with file and line when there is none."""
    return search_file(path).plan()


def search_file(path: str | Path) -> Search:
    """The search over all plans of the job file at `path`; UserError with file and line."""
    document = read_yaml(Path(path))
    job = parse(document)
    try:
        return search(job, read_job_model(job), read_job_hardware(job))
    except UserError as error:
        raise document.locate(error) from None


def read_job_model(job: JobSpec) -> ModelSpec:
    """The model a job names; its path is relative to the working directory."""
    folder = Path(job.model.path)
    if not (folder / "config.json").is_file():
        raise SpecError(
            f"no config.json in {job.model.path!r}; give the folder of a Hugging Face model",
            at=("model",),
        )
    return read_model(folder)


def read_job_hardware(job: JobSpec) -> HardwareSpec:
    """The hardware a job names."""
    return read_hardware(job.cluster.hardware)
