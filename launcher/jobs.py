"""What is done to the jobs of a run: cancel, stop after a step, queue again, go in."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path

from launcher.attempt import HALT
from launcher.decision import BY_USER
from launcher.folder import is_done
from launcher.ledger import note, read_ledger
from launcher.submission import SCRIPT
from plans.source import UserError
from runtime.context import attempt_path
from runtime.environment import current
from runtime.files import write_file
from runtime.heartbeat import read_beats
from runtime.stopping import STOP
from slurm.commands import PAUSES_SECONDS, Refused, call, patiently, without_inherited
from slurm.queue import QueuedJob, look
from slurm.submit import Request, submit


def live_jobs(folder: Path) -> list[QueuedJob]:
    """The jobs of a run that wait or run, in the order they were queued."""
    job_ids = read_ledger(folder).job_ids
    found = look(job_ids, pauses=PAUSES_SECONDS)
    return [found[one] for one in job_ids if one in found and found[one].live]


def cancel_run(folder: Path) -> list[str]:
    """Cancel all live jobs of a run, the waiting ones first; their ids."""
    job_ids = [job.job_id for job in reversed(live_jobs(folder))]
    if job_ids:
        patiently(lambda: call("scancel", *job_ids))
    return job_ids[::-1]


def stop_run(folder: Path) -> int:
    """Ask the attempt under way to stop after its step, for good; its number."""
    last = read_ledger(folder).last
    if last is None or last.ended is not None or is_done(folder):
        raise UserError(f"{folder}: no attempt is under way")
    write_file(attempt_path(folder, last.number) / STOP, f"{BY_USER}\n".encode())
    later = [job.job_id for job in live_jobs(folder) if job.job_id != last.job_id]
    if later:
        patiently(lambda: call("scancel", *later))
    return last.number


def requeue_run(folder: Path) -> str:
    """Let a run go on; what was done for it, in a line.

    UserError when it is complete, was never queued, or has a job in the queue.
    """
    ledger = read_ledger(folder)
    if is_done(folder):
        raise UserError(f"{folder}: the run is complete")
    if not ledger.job_ids:
        raise UserError(f"{folder}: never queued; `rlplan submit` does that")
    waiting = [job for job in live_jobs(folder) if job.state != "RUNNING"]
    if waiting:
        raise UserError(f"{folder}: job {waiting[0].job_id} is {waiting[0].state} already")
    (folder / HALT).unlink(missing_ok=True)
    last = ledger.job_ids[-1]
    try:
        patiently(lambda: call("scontrol", "requeue", last))
    except Refused:  # forgotten, or never to be queued again
        request = Request(script=folder / SCRIPT, token=f"rlplan-{uuid.uuid4().hex}")
        job_id = submit(request, "sbatch", current(), pauses=PAUSES_SECONDS)
        note(folder, "queued", job_id=job_id, place=1, of=1, way="sbatch")
        return f"Slurm has forgotten job {last}; submitted the script again as job {job_id}"
    note(folder, "requeued", job_id=last)
    return f"job {last} is queued again"


def attach_command(
    folder: Path, rank: int | None, command: Sequence[str], *, terminal: bool
) -> list[str]:
    """The srun that goes into a running job, beside what runs there.

    UserError when no job runs, or when there is no such rank.
    """
    running = [job for job in live_jobs(folder) if job.state == "RUNNING"]
    if not running:
        raise UserError(f"{folder}: no job of it is running")
    words = [*without_inherited(current()), "srun"]
    words += [f"--jobid={running[0].job_id}", "--overlap", "--nodes=1", "--ntasks=1"]
    if rank is not None:
        words.append(f"--nodelist={_host(folder, rank)}")
    if terminal:
        words.append("--pty")
    return [*words, *(command or ("bash",))]


def _host(folder: Path, rank: int) -> str:
    """The node of a rank, by its heartbeat."""
    last = read_ledger(folder).last
    beats = read_beats(attempt_path(folder, last.number) / "heartbeat") if last else ()
    for beat in beats:
        if beat.rank == rank:
            return beat.host
    raise UserError(f"{folder}: no rank {rank} has started; there are {len(beats)}")
