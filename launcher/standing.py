"""Where a run stands: by the queue where it knows, else by what the run has written itself."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from launcher.attempt import HALT
from launcher.folder import RUNS, is_done
from launcher.ledger import Attempt, Ledger, committed_step, read_ledger
from launcher.lost import LOST, settled
from plans.chain import chain_of
from plans.hardware import HardwareSpec, read_hardware
from plans.plan import Plan, read_plan
from plans.reports.run import step_line
from plans.source import UserError, suggestion
from plans.units import seconds_text
from plans.values import frozen
from runtime.metrics import METRICS, read_metrics
from slurm.accounting import device_hours
from slurm.commands import Refused, Unreachable
from slurm.queue import QueuedJob, look

HOUR = 3600.0
# The mean over so many steps tells how long the rest will take.
ETA_STEPS = 20
State = Literal["planned", "waiting", "running", "done", "stopped", "ended", "lost"]


@frozen
class Standing:
    """A run at one moment. `jobs` is None when no queue answers; hours are device hours.

    used_by: 'sacct', or 'events' where nothing is accounted.
    """

    folder: Path
    plan: Plan
    hardware: HardwareSpec
    ledger: Ledger
    jobs: tuple[QueuedJob, ...] | None
    step: int
    safe_step: int
    last_line: str
    halt: str
    done: bool
    used_hours: float
    used_by: str
    planned_hours: float

    @property
    def state(self) -> State:
        """One word for it."""
        live = [job.state for job in self.jobs or () if job.live]
        if self.done:
            return "done"
        if live:
            return "running" if set(live) & {"RUNNING", "COMPLETING"} else "waiting"
        if self.halt:
            return "stopped"
        if not self.jobs and self.ledger.last and self.ledger.last.ended is None:
            return "running"
        if self.ledger.last and self.ledger.last.verdict == LOST:
            return LOST
        return "ended" if self.ledger.attempts or self.ledger.job_ids else "planned"


def find_run(name: str) -> Path:
    """The folder of a run, by name or path; UserError with the runs there are."""
    for folder in (Path(name), Path(RUNS) / name):
        if (folder / "plan.json").is_file():
            return folder
    known = sorted(path.parent.name for path in Path(RUNS).glob("*/plan.json"))
    there = f"; here are {', '.join(known)}" if known else f"; there is no {RUNS}/ here"
    raise UserError(f"no run {name!r}{suggestion(name, known, there)}")


def standing(folder: Path, now: float) -> Standing:
    """Where a run stands now; a queue that does not answer is left out."""
    plan = read_plan(folder / "plan.json")
    hardware = read_hardware(plan.hardware)
    ledger = settled(read_ledger(folder), folder)
    records = read_metrics(folder / METRICS) if (folder / METRICS).exists() else []
    recent = deque(records, maxlen=ETA_STEPS)
    accounted = device_hours(ledger.job_ids, hardware.cores_per_device)
    halt = folder / HALT
    line, step = "", 0
    if recent:
        step = recent[-1].step
        seconds = [record.metrics["timing_s/step"] for record in recent]
        left = (plan.job.steps - step) * sum(seconds) / len(seconds)
        planned = plan.step_seconds
        line = step_line(recent[-1], plan_seconds=planned, steps=plan.job.steps, eta_seconds=left)
    return Standing(
        folder=folder,
        plan=plan,
        hardware=hardware,
        ledger=ledger,
        jobs=_jobs(ledger),
        step=step,
        safe_step=committed_step(folder),
        last_line=line,
        halt=halt.read_text().strip() if halt.exists() else "",
        done=is_done(folder),
        used_hours=ledger.device_hours(now) if accounted is None else accounted,
        used_by="events" if accounted is None else "sacct",
        planned_hours=chain_of(plan, plan.slowest).seconds * plan.world_size / HOUR,
    )


def _jobs(ledger: Ledger) -> tuple[QueuedJob, ...] | None:
    if not ledger.job_ids:
        return ()
    try:
        found = look(ledger.job_ids)
    except (Refused, Unreachable):
        return None
    return tuple(found[job_id] for job_id in ledger.job_ids if job_id in found)


def standing_text(here: Standing) -> str:
    """The run on a few lines: state, queue, attempts, progress, hours."""
    name, digest = here.folder.name, here.plan.digest[:8]
    lines = [f"{name} · {here.state} · plan {digest} · {here.folder}"]
    if here.jobs is None:
        lines.append("queue     does not answer; this is what the run has written itself")
    lines += [f"job       {job_text(job)}" for job in here.jobs or ()]
    lines += [f"attempt   {attempt_text(attempt)}" for attempt in here.ledger.attempts[-3:]]
    if here.last_line:
        lines.append(f"progress  {here.last_line}")
        lines.append(f"safe      step {here.safe_step}")
    if here.halt:
        lines.append(f"stopped   {here.halt}; `rlplan requeue {name}` lets it go on")
    lines.append(f"used      {hours_text(here)}")
    return "\n".join(lines)


def job_text(job: QueuedJob) -> str:
    """'17 RUNNING on node[0-3] since 2026-11-21T12:00:00, ends 2026-11-22T00:00:00 (squeue)'."""
    parts = [f"{job.job_id} {job.state}"]
    parts += [f"on {job.nodes}"] if job.nodes else []
    parts += [f"since {job.start}"] if job.start and job.state != "PENDING" else []
    parts += [f"ends {job.end}"] if job.end and job.state == "RUNNING" else []
    parts += [f"because of {job.reason}"] if job.reason and job.live else []
    return f"{' '.join(parts)} ({job.source})"


def attempt_text(attempt: Attempt) -> str:
    """'2 of job 17 on node[0-3]: step 118, 412 s; rank 3 killed by SIGKILL (again)'."""
    job = f"of job {attempt.job_id} " if attempt.job_id else ""
    place = f"{attempt.number} {job}on {attempt.nodes}"
    if attempt.ended is None:
        return f"{place}: under way"
    took = seconds_text(round(attempt.ended - attempt.started, 1))
    return f"{place}: step {attempt.step} safe after {took}; {attempt.reason} ({attempt.verdict})"


def hours_text(here: Standing) -> str:
    """'12.3 of 296 planned GPU-hours (sacct)'."""
    unit = "core-hours" if here.hardware.platform == "cpu" else "GPU-hours"
    return f"{here.used_hours:.3g} of {here.planned_hours:.3g} planned {unit} ({here.used_by})"


def standing_data(here: Standing) -> dict[str, Any]:
    """The same for programs."""
    return {
        "name": here.folder.name,
        "state": here.state,
        "plan": here.plan.digest,
        "folder": str(here.folder),
        "queue_answers": here.jobs is not None,
        "jobs": [asdict(job) for job in here.jobs or ()],
        "attempts": [asdict(one) for one in here.ledger.attempts],
        "step": here.step,
        "steps": here.plan.job.steps,
        "safe_step": here.safe_step,
        "stopped": here.halt,
        "used_hours": round(here.used_hours, 6),
        "used_by": here.used_by,
        "planned_hours": round(here.planned_hours, 6),
    }
