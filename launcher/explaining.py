"""`rlplan explain` and `rlplan diff`: why a plan is what it is, and how two plans differ."""

from __future__ import annotations

import re
from pathlib import Path

import click

from launcher.asking import fix_option, fixes
from launcher.planning import columns, echo_json, job_argument, json_option


@click.command()
@job_argument
@click.option("--why-not", "wanted", metavar="AXIS=N,...", help="Only layouts such as tp=8,pp=1.")
@fix_option
@json_option
def explain(job: Path, wanted: str | None, fixed: tuple[str, ...], as_json: bool) -> None:
    """Say why the plan is what it is: the other layouts, and what they lose or break.

    \b
    Example:
      rlplan explain job.yaml --why-not tp=8
    """
    from plans.load import estimate as estimate_file

    degrees = _degrees(wanted)
    found = estimate_file(job, fixes(fixed))
    if as_json:
        from plans.reports.data import estimate_data

        data = estimate_data(found)
        echo_json({key: data[key] for key in ("plan", "layouts", "rejections")})
    else:
        from plans.reports.explain import explain_text

        click.echo(explain_text(found, degrees, columns()), nl=False)


@click.command()
@click.argument("one", metavar="A", type=click.Path(path_type=Path))
@click.argument("other", metavar="B", type=click.Path(path_type=Path))
@json_option
def diff(one: Path, other: Path, as_json: bool) -> int:
    """Say how two plans differ; each is a job file or a plan.json.

    The exit code is 1 when they differ, as diff's is.

    \b
    Examples:
      rlplan diff job.yaml runs/math-grpo-7b/plan.json
      rlplan diff small.yaml large.yaml
    """
    from plans.load import make_plan
    from plans.plan import read_plan
    from plans.reports.difference import differences, differences_text

    first, second = (
        read_plan(path) if path.suffix == ".json" else make_plan(path) for path in (one, other)
    )
    found = differences(first, second)
    if as_json:
        echo_json([{"what": each.what, "from": each.before, "to": each.after} for each in found])
    else:
        click.echo(differences_text(first, second, found, columns()), nl=False)
    return int(bool(found))


def _degrees(wanted: str | None) -> dict[str, int]:
    """{'tp': 8} from 'tp=8'."""
    pairs = [re.fullmatch(r"(tp|pp|dp)=(\d+)", word) for word in (wanted or "").split(",") if word]
    if not all(pairs):
        raise click.BadParameter(f"{wanted!r} is not like tp=8,pp=1", param_hint="--why-not")
    return {pair[1]: int(pair[2]) for pair in pairs if pair}
