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
    from launcher.job import run as run_job

    ended = run_job(
        job,
        resume=resume,
        overwrite=overwrite,
        rehearse=rehearse,
        until=until,
        stream=sys.stderr if as_json else sys.stdout,
    )
    return _conclude(ended.outcome, ended.folder, as_json)


def _conclude(outcome: Outcome, folder: Path, as_json: bool) -> int:
    if outcome.code:
        log = folder / f"attempt-{outcome.attempt}" / "logs"
        click.echo(f"{outcome.text}\nlogs: {log}", err=True)
        return outcome.code
    summary = folder / "summary.json"
    if as_json and summary.exists():
        click.echo(json.dumps(json.loads(summary.read_text()), indent=1, sort_keys=True))
    return 0
