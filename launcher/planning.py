"""The commands that need no machine: plan, estimate, explain, render."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from plans.source import UserError

if TYPE_CHECKING:
    from plans.plan import Plan

job_argument = click.argument("job", type=click.Path(path_type=Path))
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
output_option = click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write to this file."
)


@click.command()
@job_argument
@output_option
@json_option
def plan(job: Path, output: Path | None, as_json: bool) -> None:
    """Plan the run of a job file.

    Prints what the plan decides; -o writes plan.json, --json prints it.

    \b
    Example:
      rlplan plan job.yaml -o plan.json
    """
    from plans.load import estimate as estimate_file
    from plans.plan import dumps
    from plans.report import plan_text

    found = estimate_file(job)
    if output:
        _write(output, dumps(found.plan))
    elif as_json:
        click.echo(dumps(found.plan), nl=False)
    else:
        click.echo(plan_text(found), nl=False)


@click.command()
@job_argument
@json_option
def estimate(job: Path, as_json: bool) -> None:
    """Say what a run will take: seconds by phase, memory, device hours, jobs in the chain.

    \b
    Example:
      rlplan estimate job.yaml
    """
    from plans.load import estimate as estimate_file
    from plans.report import estimate_text

    found = estimate_file(job)
    if as_json:
        _echo_json(found.data())
    else:
        click.echo(estimate_text(found), nl=False)


@click.command()
@job_argument
@click.option("--why-not", "wanted", metavar="AXIS=N,...", help="Only layouts such as tp=8,pp=1.")
@json_option
def explain(job: Path, wanted: str | None, as_json: bool) -> None:
    """Say why the plan is what it is: the other layouts, and what they lose or break.

    \b
    Example:
      rlplan explain job.yaml --why-not tp=8
    """
    from plans.load import estimate as estimate_file
    from plans.report import explain_text

    degrees = _degrees(wanted)
    found = estimate_file(job)
    if as_json:
        data = found.data()
        _echo_json({key: data[key] for key in ("plan", "layouts", "rejections")})
    else:
        click.echo(explain_text(found, degrees), nl=False)


@click.command()
@job_argument
@output_option
@click.option("--python", default=sys.executable, help="Interpreter on the compute nodes.")
@click.option("--mpi", default="pmi2", show_default=True, help="Plug-in of `srun --mpi=list`.")
@json_option
def render(job: Path, output: Path | None, python: str, mpi: str, as_json: bool) -> None:
    """Print the batch script of a job file or of a plan.json.

    The plan is left in runs/NAME/plan.json, where the script looks for it.

    \b
    Example:
      rlplan render job.yaml > job.sbatch && sbatch job.sbatch
    """
    from launcher.platforms import platform_of
    from plans.hardware import read_hardware
    from plans.load import make_plan
    from plans.plan import read_plan
    from slurm.script import render as render_script

    planned = job.suffix == ".json"
    chosen = read_plan(job) if planned else make_plan(job)
    base = Path() if planned else job.parent
    hardware = read_hardware(chosen.hardware)
    text = render_script(
        chosen, hardware, platform_of(hardware), base=str(base), python=python, mpi=mpi
    )
    place = _leave_plan(chosen)
    if output:
        _write(output, text)
    elif as_json:
        _echo_json({"plan": chosen.digest, "plan_file": str(place), "script": text})
    else:
        click.echo(text, nl=False)


def _leave_plan(chosen: Plan) -> Path:
    """Put plan.json into the run's folder; UserError when another plan is there."""
    from launcher.folder import run_path
    from plans.plan import dumps, read_plan

    place = run_path(Path(), chosen.job.name) / "plan.json"
    if not place.exists():
        _write(place, dumps(chosen))
        return place
    found = read_plan(place)
    if found.digest != chosen.digest:
        raise UserError(
            f"{place}: holds plan {found.digest[:8]}, the job now gives {chosen.digest[:8]}; "
            "move the folder away, or give the run another name"
        )
    return place


def _degrees(wanted: str | None) -> dict[str, int]:
    """{'tp': 8} from 'tp=8'."""
    pairs = [re.fullmatch(r"(tp|pp|dp)=(\d+)", word) for word in (wanted or "").split(",") if word]
    if not all(pairs):
        raise click.BadParameter(f"{wanted!r} is not like tp=8,pp=1", param_hint="--why-not")
    return {pair[1]: int(pair[2]) for pair in pairs if pair}


def _write(path: Path, text: str) -> None:
    """Put a file in place, whole, and say so; UserError when it cannot be written."""
    from runtime.files import make_folder, write_file

    try:
        make_folder(path.parent)
        write_file(path, text.encode())
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {(error.strerror or '').lower()}") from None
    click.echo(f"wrote {path}", err=True)


def _echo_json(data: Any) -> None:
    click.echo(json.dumps(data, indent=1, sort_keys=True))
