"""What a job asks of Slurm: every `#SBATCH` and `srun` option is decided here, with its reason."""

from __future__ import annotations

from dataclasses import dataclass

from plans.chain import chain_of, lead_seconds
from plans.hardware import HardwareSpec
from plans.plan import Plan
from plans.record import run_name

# sbatch refuses a longer --signal time.
LONGEST_LEAD_SECONDS = 65535
# Restarts beyond those of the planned chain: pre-emptions and node failures.
SPARE_RESTARTS = 5
# How long the other ranks may live after the first has ended well.
WAIT_SECONDS = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Directives:
    """The options of one job, as (name, value) in the order they are written; '' is a bare flag."""

    sbatch: tuple[tuple[str, str], ...]
    srun: tuple[tuple[str, str], ...]
    most_restarts: int


def directives_of(
    plan: Plan, hardware: HardwareSpec, mpi: str, *, rehearse: bool = False
) -> Directives:
    """The options for a plan; `mpi` is the plug-in of `srun --mpi=list` that starts its MPI."""
    slowest = plan.slowest
    return Directives(
        sbatch=(
            ("job-name", plan.job.name),
            *_queue(plan),
            ("nodes", str(_nodes(plan))),
            ("ntasks-per-node", str(plan.ranks_per_node)),
            ("cpus-per-task", str(hardware.cores_per_device)),
            *_devices(plan, hardware),
            ("time", plan.job.slurm.time),
            # B: only the batch shell hears it; children without a handler would die of it.
            ("signal", f"B:USR1@{min(LONGEST_LEAD_SECONDS, lead_seconds(plan, slowest))}"),
            ("requeue", ""),
            # A requeued job would otherwise overwrite the log of the attempt before.
            ("open-mode", "append"),
            ("output", f"runs/{run_name(plan.job.name, rehearse=rehearse)}/slurm-%j.log"),
        ),
        srun=_srun(plan, hardware, mpi),
        most_restarts=chain_of(plan, slowest).jobs - 1 + SPARE_RESTARTS,
    )


def _queue(plan: Plan) -> tuple[tuple[str, str], ...]:
    """What the user said of the queue; sites have defaults for the rest."""
    wanted = plan.job.slurm
    pairs = (("account", wanted.account), ("partition", wanted.partition), ("qos", wanted.qos))
    return tuple((name, value) for name, value in pairs if value)


def _devices(plan: Plan, hardware: HardwareSpec) -> tuple[tuple[str, str], ...]:
    """GPUs by node: per-task GPUs hide the peers of a node from NCCL (nccl issue 1066).

    A job that takes all GPUs of its nodes takes their memory too.
    """
    if hardware.platform == "cpu":
        return ()
    gpus = ("gpus-per-node", str(plan.ranks_per_node))
    whole = plan.ranks_per_node == hardware.devices_per_node
    return (gpus, ("exclusive", ""), ("mem", "0")) if whole else (gpus,)


def _srun(plan: Plan, hardware: HardwareSpec, mpi: str) -> tuple[tuple[str, str], ...]:
    """The step's own options; srun does not inherit --cpus-per-task in Slurm 22.05 to 23.02."""
    bind = () if hardware.platform == "cpu" else (("gpu-bind", "none"),)
    return (
        ("nodes", str(_nodes(plan))),
        ("ntasks", str(plan.world_size)),
        ("ntasks-per-node", str(plan.ranks_per_node)),
        ("cpus-per-task", str(hardware.cores_per_device)),
        *bind,
        ("mpi", mpi),
        # One dead rank ends the step; the others would wait in a collective until the limit.
        ("kill-on-bad-exit", "1"),
        ("wait", str(WAIT_SECONDS)),
    )


def _nodes(plan: Plan) -> int:
    return plan.world_size // plan.ranks_per_node
