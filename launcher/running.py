"""`rlplan run`: plan a job file and run it on this machine, in front of the user's eyes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from launcher.planning import job_argument, json_option

if TYPE_CHECKING:
    from launcher.local import Outcome
    from plans.plan import Plan


@click.command()
@job_argument
@click.option("--resume", is_flag=True, help="Go on from the latest checkpoint.")
@click.option("--overwrite", is_flag=True, help="Delete an earlier run of this name first.")
@click.option("--rehearse", is_flag=True, help="Walk the plan without engines or devices.")
@click.option(
    "--until",
    type=click.IntRange(min=1),
    metavar="STEP",
    help="Stop after this step; see --resume.",
)
@json_option
def run(
    job: Path, resume: bool, overwrite: bool, rehearse: bool, until: int | None, as_json: bool
) -> int:
    """Plan a job file and run it on this machine.

    Everything the run leaves is in runs/NAME: plan, metrics, experience, checkpoints, export.
    Paths in a job file start at the folder it stands in. --json prints summary.json at the
    end; the progress then goes to stderr.

    \b
    Examples:
      rlplan run examples/addition-grpo.yaml
      rlplan run job.yaml --until 100 && rlplan run job.yaml --resume
      rlplan run job.yaml --rehearse
    """
    from launcher.folder import open_run, run_path
    from launcher.local import start
    from launcher.mpi import find_mpirun
    from launcher.screen import Screen
    from plans.load import check_inputs, make_plan
    from runtime.environment import current

    chosen = make_plan(job)
    check_inputs(job)
    mpirun = find_mpirun(current())
    folder = run_path(Path(), chosen.job.name, rehearse=rehearse)
    attempt = open_run(folder, chosen, resume=resume, overwrite=overwrite or rehearse)
    with Screen(chosen, sys.stderr if as_json else sys.stdout) as screen:
        screen.say(_header(chosen, folder, str(mpirun)))
        outcome = start(
            chosen,
            folder,
            job.parent,
            attempt,
            resume=resume,
            rehearse=rehearse,
            until=until,
            listener=screen.hear,
        )
    return _conclude(outcome, folder, as_json)


def _header(plan: Plan, folder: Path, mpirun: str) -> str:
    from plans.units import count_text

    return (
        f"{plan.job.name} · {count_text(plan.model.parameter_count)} parameters · "
        f"{plan.world_size} ranks of {plan.hardware} · plan {plan.digest[:8]} · {folder}\n{mpirun}"
    )


def _conclude(outcome: Outcome, folder: Path, as_json: bool) -> int:
    if outcome.code:
        log = folder / f"attempt-{outcome.attempt}" / "logs"
        click.echo(f"{outcome.text}\nlogs: {log}", err=True)
        return outcome.code
    summary = folder / "summary.json"
    if as_json and summary.exists():
        click.echo(json.dumps(json.loads(summary.read_text()), indent=1, sort_keys=True))
    return 0
