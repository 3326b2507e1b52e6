"""A job held against what a cluster allows before it is queued: mistakes with the legal values.

`sbatch --test-only` asks neither account nor quality of service where they are not enforced,
and says of a wrong one only that it is wrong.
"""

from __future__ import annotations

from plans.chain import limit_seconds
from plans.plan import Plan
from plans.source import UserError, suggestion
from plans.units import seconds_text
from slurm.site import Partition, SiteSpec


def check(plan: Plan, site: SiteSpec, mpi: str) -> list[UserError]:
    """What the cluster would refuse of this plan, or never start; empty when nothing."""
    wanted = plan.job.slurm
    name = wanted.partition or site.default_partition
    found: list[UserError] = []
    if name is None:
        found.append(_error("partition", "none is the default here", tuple(site.partitions)))
    elif name not in site.partitions:
        text = f"{name!r} is not one of this cluster's"
        found.append(_error("partition", text, tuple(site.partitions), name))
    else:
        found += _check_partition(plan, name, site.partitions[name])
    found += _check_account(plan, site, name)
    found += _check_qos(plan, site)
    if site.mpi.types and mpi not in site.mpi.types:
        listed = ", ".join(site.mpi.types)
        found.append(UserError(f"--mpi: srun has no plug-in {mpi!r}; it has {listed}"))
    return found


def _check_partition(plan: Plan, name: str, partition: Partition) -> list[UserError]:
    nodes = plan.nodes
    found = []
    if not partition.up:
        found.append(_error("partition", f"{name!r} is down"))
    if nodes > partition.most_nodes():
        text = f"{nodes}, but a job on {name!r} may have {partition.most_nodes()}"
        found.append(UserError(text, at=("cluster", "nodes")))
    if nodes < partition.min_nodes:
        text = f"{nodes}, but a job on {name!r} must have {partition.min_nodes}"
        found.append(UserError(text, at=("cluster", "nodes")))
    longest = partition.longest_seconds(nodes)
    if longest is not None and limit_seconds(plan.job.slurm.time) > longest:
        text = f"{plan.job.slurm.time} is more than {seconds_text(longest)}, the most on {name!r}"
        found.append(_error("time", f"{text} with {nodes} nodes"))
    return found


def _check_account(plan: Plan, site: SiteSpec, partition: str | None) -> list[UserError]:
    """Only where accounts are enforced does a wrong one matter; others are only noted down."""
    account = plan.job.slurm.account
    if not site.accounts or not site.enforced:
        return []
    names = site.account_names(partition if partition in site.partitions else None)
    if account is not None and account not in names:
        text = f"{account!r} is not one of yours on this cluster"
        return [_error("account", text, names, account)]
    return []


def _check_qos(plan: Plan, site: SiteSpec) -> list[UserError]:
    qos, account = plan.job.slurm.qos, plan.job.slurm.account
    if qos is None or "qos" not in site.enforced:
        return []
    if qos not in site.qos:
        return [_error("qos", f"{qos!r} is not one of this cluster's", tuple(site.qos), qos)]
    names = site.qos_names(account) or site.qos_names()
    if qos not in names:
        return [_error("qos", f"{qos!r} is not open to you", names, qos)]
    limit = site.qos[qos].time
    if limit and limit_seconds(plan.job.slurm.time) > limit_seconds(limit):
        return [_error("time", f"{plan.job.slurm.time} is more than the {limit} of qos {qos!r}")]
    return []


def _error(key: str, text: str, legal: tuple[str, ...] = (), given: str = "") -> UserError:
    listed = f": {', '.join(legal)}" if legal else ""
    near = suggestion(given, list(legal)) if given else ""
    return UserError(f"{text}{listed}{near}", at=("slurm", key))
