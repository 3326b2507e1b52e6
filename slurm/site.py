"""SiteSpec: what one Slurm cluster offers and allows, from its `cluster.yaml`.

`rlplan doctor cluster --probe` writes the file from what Slurm's own programs tell. What Slurm
does not tell stands under `ours`, and the wall time by node count of a partition; both are
written by hand, and a later probe keeps them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import AfterValidator, Field, ValidationError, model_validator

from plans.chain import limit_seconds
from plans.checks import CHECK_NAMES
from plans.mistakes import mistakes
from plans.parts import Natural, Part, Positive, Time, empty
from plans.source import SpecError, read_yaml, suggestion

FILE_NAME = "cluster.yaml"
HEADER = """\
# What this cluster offers and allows, as its own programs tell. Written by
#   rlplan doctor cluster --probe
# Edit `ours` and `walltime_by_nodes`; another probe keeps them and renews the rest.
"""
OURS_EXAMPLE = """\
# ours:
#   mpi: pmi2
#   environment: {NCCL_SOCKET_IFNAME: hsn0}
#   container: {runtime: apptainer, image: /shared/rlplan.sif, mounts: [/scratch]}
#   skip_checks: [locked_memory]
"""


def _one_line(text: str) -> str:
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in text):
        raise ValueError("control characters are not accepted")
    return text


def _variable(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text):
        raise ValueError("not the name of a variable")
    return text


def _check(text: str) -> str:
    if text not in CHECK_NAMES:
        hint = suggestion(text, list(CHECK_NAMES))
        raise ValueError(f"no such check; known: {', '.join(CHECK_NAMES)}{hint}")
    return text


Line = Annotated[str, AfterValidator(_one_line), Field(max_length=4096)]
Word = Annotated[str, AfterValidator(_one_line), Field(min_length=1, max_length=256)]
VariableName = Annotated[str, AfterValidator(_variable)]
CheckName = Annotated[str, AfterValidator(_check)]


class NodeType(Part):
    """Nodes of one kind in a partition; `gpu` is the GRES type, such as h100."""

    nodes: Positive
    cpus: Positive
    memory_mib: Positive
    gpus: Natural = 0
    gpu: str = ""
    features: tuple[Word, ...] = ()


class WallTime(Part):
    """The longest time of a job on at most so many nodes (Frontier: 91 nodes, 2 h)."""

    nodes: Positive
    time: Time


class Partition(Part):
    """One partition. None is 'no limit of its own', for lists of names 'everybody'."""

    nodes: Positive
    default: bool = False
    up: bool = True
    time: Time | None = None
    walltime_by_nodes: tuple[WallTime, ...] = ()
    min_nodes: Positive = 1
    max_nodes: Positive | None = None
    accounts: tuple[Word, ...] | None = None
    denied_accounts: tuple[Word, ...] = ()
    qos: tuple[Word, ...] | None = None
    denied_qos: tuple[Word, ...] = ()
    node_types: tuple[NodeType, ...] = ()

    def longest_seconds(self, nodes: int) -> int | None:
        """The longest a job of so many nodes may take; None where nothing limits it."""
        fitting = [step for step in self.walltime_by_nodes if nodes <= step.nodes]
        steps = [min(fitting, key=lambda step: step.nodes).time] if fitting else []
        limits = [limit_seconds(text) for text in (self.time, *steps) if text]
        return min(limits, default=None)

    def most_nodes(self) -> int:
        """The most nodes of one job."""
        return min(self.nodes, self.max_nodes or self.nodes)

    def gpus_per_node(self) -> int:
        """The most GPUs that a node of the partition has."""
        return max((kind.gpus for kind in self.node_types), default=0)


class Account(Part):
    """One association of the user: an account, on one partition or (None) on all."""

    name: Word
    partition: Word | None = None
    qos: tuple[Word, ...] = ()
    default_qos: Word | None = None
    time: Time | None = None
    max_nodes: Positive | None = None
    max_running: Positive | None = None
    max_queued: Positive | None = None


class Quality(Part):
    """A quality of service and its limits for one job and for one user."""

    time: Time | None = None
    max_nodes: Positive | None = None
    max_gpus: Positive | None = None
    max_running: Positive | None = None
    max_queued: Positive | None = None


class MPISpec(Part):
    """The plug-ins of `srun --mpi=list`, and the one srun takes when none is named."""

    types: tuple[Word, ...] = ()
    default: Word = "none"


class ContainerSpec(Part):
    """How ranks are put into a container here, and the image: a file, or a registry's name.

    `mounts` beside the folder of submission; `python` is the interpreter in the image.
    """

    runtime: Literal["none", "apptainer", "pyxis"] = "none"
    image: Word | None = None
    mounts: tuple[Word, ...] = ()
    python: Word = "python"

    @model_validator(mode="after")
    def _has_image(self) -> ContainerSpec:
        if self.runtime != "none" and self.image is None:
            raise ValueError(f"{self.runtime} needs the image")
        return self


class OursSpec(Part):
    """What Slurm does not tell and people of the site know; never changed by a probe.

    `mpi`: the plug-in that suits the MPI of the environment; `environment`: variables of this
    site, which win over those of rlplan; `skip_checks`: preflight checks that do not hold here.
    """

    mpi: Word | None = None
    environment: dict[VariableName, Line] = empty()
    container: ContainerSpec = empty()
    skip_checks: tuple[CheckName, ...] = ()


class SiteSpec(Part):
    """One Slurm cluster. With `enforced`, jobs without a valid account or QOS are refused.

    `accounts` are those of the user who probed; empty where accounting is off.
    """

    format: Literal[1] = 1
    name: Word
    slurm: Word
    accounting: bool = False
    enforced: tuple[Word, ...] = ()
    requeue: bool = True
    max_array: Positive | None = None
    mpi: MPISpec = empty()
    partitions: dict[Word, Partition]
    accounts: tuple[Account, ...] = ()
    qos: dict[Word, Quality] = empty()
    ours: OursSpec = empty()

    @property
    def default_partition(self) -> str | None:
        """The partition of a job that names none."""
        return next((name for name, one in self.partitions.items() if one.default), None)

    def account_names(self, partition: str | None = None) -> tuple[str, ...]:
        """The user's accounts, on a partition or on any; each once, as Slurm lists them."""
        mine = [
            one.name for one in self.accounts if partition in (None, one.partition or partition)
        ]
        return tuple(dict.fromkeys(mine))

    def qos_names(self, account: str | None = None) -> tuple[str, ...]:
        """The qualities of service open to the user, by one account or by any."""
        mine = [one.qos for one in self.accounts if account in (None, one.name)]
        return tuple(dict.fromkeys(name for names in mine for name in names))


def read_site(path: Path) -> SiteSpec:
    """The cluster in a file. SpecError with one line a mistake: file, line, key, reason."""
    document = read_yaml(path)
    try:
        return SiteSpec.model_validate(document.data)
    except ValidationError as error:
        raise SpecError(mistakes(document, error, SiteSpec)) from None


def find_site(folder: Path) -> SiteSpec | None:
    """The cluster of `cluster.yaml` in a folder; None when there is no such file."""
    path = folder / FILE_NAME
    return read_site(path) if path.exists() else None


def site_text(site: SiteSpec) -> str:
    """The text of a `cluster.yaml`; reading it gives the same site again."""
    data = {"format": site.format, **site.model_dump(mode="json", exclude_defaults=True)}
    if site.ours == OursSpec():
        data.pop("ours", None)
    text = yaml.safe_dump(data, sort_keys=False, width=100)
    return HEADER + text + ("" if "ours" in data else OURS_EXAMPLE)


def renewed(probed: SiteSpec, kept: SiteSpec) -> SiteSpec:
    """What was probed now, with what people wrote into the file before."""
    partitions = {
        name: one.model_copy(update={"walltime_by_nodes": kept.partitions[name].walltime_by_nodes})
        if name in kept.partitions
        else one
        for name, one in probed.partitions.items()
    }
    return probed.model_copy(update={"partitions": partitions, "ours": kept.ours})
