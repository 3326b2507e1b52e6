"""`rlplan report`: what a run took against what its plan promised."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from typing import Any

import click

from launcher.planning import echo_json, json_option, write
from launcher.queueing import run_argument
from plans.record import StepRecord


@click.command()
@run_argument
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write a page.")
@json_option
def report(name: str, html: Path | None, as_json: bool) -> None:
    """Hold a run against its plan: attempts, phases, device hours.

    --html writes one self-contained page: curves, a step on every rank, promised and measured
    seconds, memory, samples.

    \b
    Examples:
      rlplan report grpo-math-7b
      rlplan report grpo-math-7b --html report.html
    """
    from launcher.standing import attempt_text, find_run, hours_text, standing
    from plans.reports.run import timeouts, timeouts_text

    if html:
        from launcher.history import read_history
        from plans.reports.run_page import run_page

        write(html, run_page(read_history(find_run(name))))
        return
    here = standing(find_run(name), time.time())
    rows = phase_rows(here.folder, {phase.name: phase.seconds for phase in here.plan.phases})
    lost = sum(one.device_hours(time.time()) for one in here.ledger.attempts if one.code)
    late = timeouts(_records(here.folder))
    if as_json:
        data: dict[str, Any] = {
            "phases": rows,
            "hours_of_failed_attempts": lost,
            "reward_timeouts": late,
        }
        from launcher.standing import standing_data

        echo_json({**standing_data(here), **data})
        return
    click.echo(f"{here.folder.name} · {here.state} · {here.step}/{here.plan.job.steps} steps")
    click.echo(f"used      {hours_text(here)}; {lost:.3g} in attempts that failed")
    for attempt in here.ledger.attempts:
        click.echo(f"attempt   {attempt_text(attempt)}")
    if late:
        click.echo(f"timeouts  {timeouts_text(late)}")
    if rows:
        click.echo(f"\n{'phase':<14} {'planned s':>10} {'median s':>10} {'ratio':>7}")
    for row in rows:
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
        click.echo(f"{row['phase']:<14} {row['planned']:>10.3g} {row['median']:>10.3g} {ratio:>7}")


def phase_rows(folder: Path, planned: dict[str, float]) -> list[dict[str, Any]]:
    """Planned and median seconds of each phase and of the whole step; empty before step 1."""
    records, rows = _records(folder), []
    for name, seconds in {**planned, "step": sum(planned.values())}.items():
        key = f"timing_s/{name}"
        measured = [record.metrics[key] for record in records if key in record.metrics]
        if measured:
            middle = median(measured)
            ratio = middle / seconds if seconds else None
            rows.append({"phase": name, "planned": seconds, "median": middle, "ratio": ratio})
    return rows


def _records(folder: Path) -> list[StepRecord]:
    from runtime.metrics import METRICS, read_metrics

    return read_metrics(folder / METRICS) if (folder / METRICS).exists() else []
