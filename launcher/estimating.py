"""`rlplan estimate`: what a run will take, as text, as JSON, and as a page."""

from __future__ import annotations

from pathlib import Path

import click

from launcher.asking import (
    answers,
    counts,
    fix_option,
    fixes,
    listed,
    price_option,
    pricing,
    sweep,
)
from launcher.planning import columns, echo_json, json_option, output_option, write
from plans.source import UserError


@click.command()
@click.argument("job", required=False, type=click.Path(path_type=Path))
@click.option("--detail", is_flag=True, help="Every phase and kind of byte; what-ifs.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write a page.")
@fix_option
@price_option
@click.option("--hardware", metavar="NAME,...", help="On these kinds of nodes: a table.")
@click.option("--nodes", metavar="N,...", help="On so many nodes: a table.")
@click.option(
    "--measured",
    metavar="RUN",
    type=click.Path(path_type=Path),
    help="Hold the plan of a run, runs/NAME, against what it measured.",
)
@output_option
@json_option
def estimate(
    job: Path | None,
    detail: bool,
    html: Path | None,
    fixed: tuple[str, ...],
    price: str | None,
    hardware: str | None,
    nodes: str | None,
    measured: Path | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Say what a run will take: seconds by phase, memory, device hours, jobs in the chain.

    \b
    Examples:
      rlplan estimate job.yaml
      rlplan estimate job.yaml --detail --price 2.50
      rlplan estimate job.yaml --fix tp=4,rollout.tp=2
      rlplan estimate job.yaml --html plan.html
      rlplan estimate job.yaml --hardware h100-sxm,mi300x --nodes 1,2,4,8
      rlplan estimate --measured runs/math-grpo-7b -o mine.yaml
    """
    if output and not measured:
        raise click.UsageError("-o writes the constants of --measured; --html writes a page")
    if measured:
        _print_measured(measured, output, as_json)
    elif job and (hardware or nodes):
        _print_sweep(job, hardware, nodes, fixed, price, as_json)
    elif job:
        _print_estimate(job, detail, html, fixed, price, as_json)
    else:
        raise click.UsageError("give a job file, or --measured runs/NAME")


def _print_estimate(
    job: Path,
    detail: bool,
    html: Path | None,
    fixed: tuple[str, ...],
    price: str | None,
    as_json: bool,
) -> None:
    """As a page, as JSON, in detail or on one screen."""
    from plans.load import estimate as estimate_file

    changes, priced = fixes(fixed), pricing(price)
    found = priced(estimate_file(job, changes))
    asked = answers(job, found, changes, priced) if detail or html else ()
    if html:
        from plans.reports.page import page

        write(html, page(found, asked))
    if as_json:
        from plans.reports.data import estimate_data

        echo_json(estimate_data(found, asked))
    elif detail:
        from plans.reports.detail import detail_text

        click.echo(detail_text(found, columns(), asked), nl=False)
    elif not html:
        from plans.reports.screen import estimate_text

        click.echo(estimate_text(found, columns()), nl=False)


def _print_sweep(
    job: Path,
    hardware: str | None,
    nodes: str | None,
    fixed: tuple[str, ...],
    price: str | None,
    as_json: bool,
) -> None:
    """Print what the job takes on each of these machines."""
    from plans.hardware import known_hardware
    from plans.reports.sweep import sweep_data, sweep_text

    kinds = listed(hardware, "--hardware", known_hardware())
    points = sweep(job, kinds, counts(nodes, "--nodes"), fixes(fixed), pricing(price))
    if as_json:
        echo_json(sweep_data(points))
    else:
        click.echo(sweep_text(points, columns()), nl=False)


def _print_measured(folder: Path, output: Path | None, as_json: bool) -> None:
    """Print a run beside its plan, and the constants that it would have taken."""
    from plans.plan import read_plan
    from plans.reports.measured import measured_data, measured_run, measured_text, steady
    from plans.reports.tuned import calibration_text, tuned, tuned_text
    from plans.reports.words import named
    from runtime.metrics import METRICS, read_metrics

    plan = read_plan(folder / "plan.json")
    if not (folder / METRICS).is_file():
        raise UserError(f"{folder}: no {METRICS}; the run has not ended a step yet")
    records = read_metrics(folder / METRICS)
    run = measured_run(plan, records, str(folder))
    found = tuned(run, steady(records))
    if as_json:
        echo_json({**measured_data(run), "constants": found.after, "stack": found.stack})
    else:
        click.echo(measured_text(run, columns()), nl=False)
        click.echo("\n".join(named("constants", tuned_text(found), columns())))
    if output:
        write(output, calibration_text(found, str(folder)))
    elif not as_json:
        text = "-o FILE writes them; rlplan estimate --calibration FILE reads them"
        click.echo("\n".join(named("", text, columns())))
