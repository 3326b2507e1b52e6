"""What planning commands share: changes of the job, prices, and questions answered with a bar."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from plans.estimate import Estimate
    from plans.reports.sweep import Point
    from plans.variant import Change
    from plans.whatif import Answer

Item = TypeVar("Item")
MOST_DOLLARS = 1e6
fix_option = click.option(
    "--fix",
    "fixed",
    metavar="KEY=VALUE,...",
    multiple=True,
    help="Settle keys of the job, such as tp=4,rollout.tp=2,nodes=8.",
)
price_option = click.option(
    "--price", metavar="FILE|DOLLARS", help="Of a device hour; default: the newest list."
)


def fixes(texts: Sequence[str]) -> tuple[Change, ...]:
    """The changes that all `--fix` options ask for."""
    if not texts:
        return ()
    from plans.variant import changes_of

    return tuple(change for text in texts for change in changes_of(text))


def pricing(price: str | None) -> Callable[[Estimate], Estimate]:
    """What adds the price of its hardware to an estimate: from a list, or as the user gave it."""
    from plans.prices import flat_price, read_prices

    dollars = _dollars(price)
    if dollars is not None:
        flat = flat_price(dollars)
        return lambda found: replace(found, price=flat, priced="as given")
    listed = read_prices(Path(price) if price else None)
    return lambda found: replace(
        found, price=listed.prices.get(found.hardware.name), priced=listed.as_of
    )


def tracked(items: Iterable[Item], label: str) -> Iterator[Item]:
    """The items, with a bar on stderr when that is a terminal."""
    items = list(items)
    if not sys.stderr.isatty():
        yield from items
        return
    with click.progressbar(items, label=label, file=sys.stderr) as bar:
        yield from bar


def answers(
    job: Path, found: Estimate, changes: tuple[Change, ...], price: Callable[[Any], Any]
) -> tuple[Answer, ...]:
    """The what-ifs of an estimate, each planned anew."""
    from plans.load import asking
    from plans.whatif import answered, questions

    ask = asking(job)
    asked = tracked(questions(found.plan, found.hardware), "what if")
    return tuple(answered(one, lambda more: price(ask((*changes, *more)))) for one in asked)


def sweep(
    job: Path,
    hardware: Sequence[str],
    nodes: Sequence[int],
    changes: tuple[Change, ...],
    price: Callable[[Any], Any],
) -> tuple[Point, ...]:
    """The job on each kind of hardware with each number of nodes; () keeps what the job says."""
    from plans.load import asking
    from plans.reports.sweep import Point
    from plans.source import UserError
    from plans.variant import Change

    ask = asking(job)
    own = ask(changes)
    cluster = own.plan.job.cluster
    kinds, counts = hardware or (own.hardware.name,), nodes or (cluster.nodes,)
    points = []
    for kind, count in tracked(product(kinds, counts), "machines"):
        asked = [Change(at=("cluster", "hardware"), value=kind)]
        asked.append(Change(at=("cluster", "nodes"), value=count))
        if kind != own.hardware.name:
            asked.append(Change(at=("cluster", "ranks"), value=None))
        try:
            found = price(ask((*changes, *asked)))
            points.append(Point(hardware=kind, nodes=count, estimate=found))
        except UserError as error:
            points.append(Point(hardware=kind, nodes=count, reason=str(error)))
    return tuple(points)


def listed(texts: str | None, option: str, known: Sequence[str] = ()) -> tuple[str, ...]:
    """The words of 'a,b'; wrong usage when one of them is not known."""
    from plans.source import suggestion

    words = tuple(word.strip() for word in (texts or "").split(",") if word.strip())
    for word in words:
        if known and word not in known:
            hint = suggestion(word, list(known), f"; known: {', '.join(known)}")
            raise click.BadParameter(f"{word!r} is not known{hint}", param_hint=option)
    return words


def counts(text: str | None, option: str) -> tuple[int, ...]:
    """The whole numbers of '1,2,4'."""
    words = listed(text, option)
    if not all(word.isdigit() and int(word) for word in words):
        raise click.BadParameter(f"{text!r} is not like 1,2,4", param_hint=option)
    return tuple(int(word) for word in words)


def _dollars(price: str | None) -> float | None:
    """A price given as a number; None when it is a file, or not given."""
    try:
        dollars = float(price) if price else None
    except ValueError:
        return None
    if dollars is not None and not 0 <= dollars < MOST_DOLLARS:
        raise click.BadParameter(f"{price} is not a price", param_hint="--price")
    return dollars
