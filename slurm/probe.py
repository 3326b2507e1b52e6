"""What a cluster says of itself: Slurm's programs asked, and their answers read into a SiteSpec.

Only formats that Slurm documents are used, and those that stayed the same from 22.05 on:
`scontrol --oneliner`, and the columns that `sinfo -o` and `sacctmgr -P` are asked for.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping

from plans.source import UserError
from plans.values import frozen
from slurm.program import answer_of, last_line
from slurm.site import Account, MPISpec, NodeType, Partition, Quality, SiteSpec

PATIENCE_SECONDS = 30.0
NODE_COLUMNS = "%R|%D|%c|%m|%G|%f"
ASSOCIATION_COLUMNS = (
    "Account",
    "Partition",
    "QOS",
    "DefaultQOS",
    "MaxWall",
    "MaxTRES",
    "MaxJobs",
    "MaxSubmit",
)
QUALITY_COLUMNS = ("Name", "MaxWall", "MaxTRES", "MaxJobsPU", "MaxSubmitPU")
# How Slurm writes that there is no limit, or nothing.
NOTHING = {"", "UNLIMITED", "INFINITE", "(null)", "N/A", "ALL", "NONE", "NO"}


@frozen
class Answers:
    """What the programs printed, as text; `associations` and `qualities` are '' without slurmdbd.

    config: `scontrol show config`; partitions: `scontrol --oneliner show partition`; nodes:
    `sinfo -h -e -o`; mpi: `srun --mpi=list`.
    """

    config: str
    partitions: str
    nodes: str
    mpi: str
    associations: str = ""
    qualities: str = ""


def ask(user: str, run: Callable[..., str] | None = None) -> Answers:
    """Ask the cluster that Slurm's programs reach here; UserError when there is none.

    `run` runs one program and returns what it prints.
    """
    program = run or _output
    config = program("scontrol", "show", "config")
    answers = {
        "config": config,
        "partitions": program("scontrol", "--oneliner", "show", "partition"),
        "nodes": program("sinfo", "--noheader", "--exact", "-o", NODE_COLUMNS),
        "mpi": program("srun", "--mpi=list"),
    }
    if "accounting_storage/slurmdbd" in config:
        table = ("sacctmgr", "--noheader", "--parsable2", "show")
        mine = f"user={user}"
        columns = f"format={','.join(ASSOCIATION_COLUMNS)}"
        answers["associations"] = program(*table, "associations", mine, columns)
        answers["qualities"] = program(*table, "qos", f"format={','.join(QUALITY_COLUMNS)}")
    return Answers(**answers)


def read_answers(answers: Answers) -> SiteSpec:
    """The cluster behind the answers; UserError naming what cannot be read."""
    config = dict(re.findall(r"^(\w+)\s*=\s*(.*?)\s*$", answers.config, re.MULTILINE))
    if "ClusterName" not in config:
        raise UserError("`scontrol show config` names no cluster; is slurmctld running?")
    kinds = _node_types(answers.nodes)
    partitions = {}
    for line in answers.partitions.splitlines():
        pairs = dict(word.partition("=")[::2] for word in line.split())
        if name := pairs.get("PartitionName"):
            partitions[name] = _partition(pairs, kinds.get(name, ()))
    enforced = config.get("AccountingStorageEnforce", "none")
    return SiteSpec(
        name=config["ClusterName"],
        slurm=config.get("SLURM_VERSION", "unknown"),
        accounting="slurmdbd" in config.get("AccountingStorageType", ""),
        enforced=() if enforced == "none" else tuple(enforced.split(",")),
        requeue=config.get("JobRequeue", "1") == "1",
        max_array=_number(config.get("MaxArraySize", "")),
        mpi=MPISpec(types=_mpi_types(answers.mpi), default=config.get("MpiDefault", "none")),
        partitions=partitions,
        accounts=tuple(_accounts(answers.associations)),
        qos=dict(_qualities(answers.qualities)),
    )


def _output(*command: str) -> str:
    try:
        answer = answer_of(command, seconds=PATIENCE_SECONDS)
    except FileNotFoundError:
        text = f"no {command[0]} here; run this on a login node of the cluster"
        raise UserError(text) from None
    except subprocess.TimeoutExpired:
        text = f"{command[0]} did not answer in {PATIENCE_SECONDS:g} s; the controller may be busy"
        raise UserError(f"{text}, try again") from None
    if answer.code:
        said = last_line(answer.text) if answer.text.strip() else f"exit code {answer.code}"
        raise UserError(f"{' '.join(command)}: {said}")
    return answer.text


def _node_types(text: str) -> Mapping[str, tuple[NodeType, ...]]:
    """By partition, from lines such as 'debug|4|64|512000|gpu:h100:8|ib,nvme'."""
    found: dict[str, tuple[NodeType, ...]] = {}
    for line in filter(None, text.splitlines()):
        partition, nodes, cpus, memory, gres, features = line.split("|")
        gpu = re.search(r"\bgpu:(?:([^:,()]+):)?(\d+)", gres)
        kind = NodeType(
            nodes=_leading(nodes),
            cpus=_leading(cpus),
            memory_mib=_leading(memory),
            gpus=int(gpu[2]) if gpu else 0,
            gpu=(gpu[1] or "") if gpu else "",
            features=_names(features) or (),
        )
        found[partition] = (*found.get(partition, ()), kind)
    return found


def _partition(pairs: Mapping[str, str], kinds: tuple[NodeType, ...]) -> Partition:
    return Partition(
        nodes=max(1, int(pairs.get("TotalNodes", "1"))),
        default=pairs.get("Default") == "YES",
        up=pairs.get("State", "UP") == "UP",
        time=_time(pairs.get("MaxTime", "")),
        min_nodes=max(1, _number(pairs.get("MinNodes", "")) or 1),
        max_nodes=_number(pairs.get("MaxNodes", "")),
        accounts=_names(pairs.get("AllowAccounts", "")),
        denied_accounts=_names(pairs.get("DenyAccounts", "")) or (),
        qos=_names(pairs.get("AllowQos", "")),
        denied_qos=_names(pairs.get("DenyQos", "")) or (),
        node_types=kinds,
    )


def _mpi_types(text: str) -> tuple[str, ...]:
    """The plug-ins: a line each from 22.05 on, 'srun: pmix' lines before; versions come last."""
    words = re.findall(r"^(?:srun:)?\s+(\w+)\s*$", text, re.MULTILINE)
    versions = re.search(r"specific pmix plugin versions available:(.*)", text)
    more = re.findall(r"\w+", versions[1]) if versions else []
    return tuple(dict.fromkeys(words + more))


def _accounts(text: str) -> list[Account]:
    found = []
    for line in filter(None, text.splitlines()):
        row = dict(zip(ASSOCIATION_COLUMNS, line.split("|"), strict=True))
        found.append(
            Account(
                name=row["Account"],
                partition=row["Partition"] or None,
                qos=_names(row["QOS"]) or (),
                default_qos=row["DefaultQOS"] or None,
                time=_time(row["MaxWall"]),
                max_nodes=_resource(row["MaxTRES"], "node"),
                max_running=_number(row["MaxJobs"]),
                max_queued=_number(row["MaxSubmit"]),
            )
        )
    return found


def _qualities(text: str) -> list[tuple[str, Quality]]:
    found = []
    for line in filter(None, text.splitlines()):
        row = dict(zip(QUALITY_COLUMNS, line.split("|"), strict=True))
        quality = Quality(
            time=_time(row["MaxWall"]),
            max_nodes=_resource(row["MaxTRES"], "node"),
            max_gpus=_resource(row["MaxTRES"], "gres/gpu"),
            max_running=_number(row["MaxJobsPU"]),
            max_queued=_number(row["MaxSubmitPU"]),
        )
        found.append((row["Name"], quality))
    return found


def _time(text: str) -> str | None:
    """A limit as Slurm prints it: '1-00:00:00' or '00:30:00'."""
    return None if text in NOTHING else text


def _names(text: str) -> tuple[str, ...] | None:
    return None if text in NOTHING else tuple(text.split(","))


def _number(text: str) -> int | None:
    return int(text) if text.isdigit() else None


def _leading(text: str) -> int:
    """The number in '64+', which sinfo prints for a group of unequal nodes."""
    return max(1, int(text.rstrip("+")))


def _resource(text: str, name: str) -> int | None:
    """The number of a resource in 'cpu=8,gres/gpu=4,node=2'."""
    return _number(dict(pair.partition("=")[::2] for pair in text.split(",")).get(name, ""))
