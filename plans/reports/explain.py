"""Why this plan: the other layouts with what they lose, and what rules out the rest."""

from __future__ import annotations

from plans.estimate import Estimate
from plans.layout import ParallelLayout
from plans.reports.rows import Rows
from plans.reports.screen import header
from plans.reports.words import COLUMNS, change, gib, number, table
from plans.search import Ranked, Search

LAYOUTS_SHOWN = 20


def explain_text(estimate: Estimate, wanted: dict[str, int], width: int = COLUMNS) -> str:
    """Why this plan: the layouts in order with what they lose, and why the others fell out.

    `wanted` narrows both lists to training layouts with these degrees, such as {'tp': 8}.
    """
    found = estimate.search
    kept = [one for one in found.ranked if _agrees(one.candidate.train, wanted)]
    refused = [one for one in found.rejections if _agrees(one.layout, wanted)]
    rows: Rows = [("layout", "step", "peak", "against the plan")]
    rows += [_ranked_row(found, one) for one in kept[:LAYOUTS_SHOWN]]
    lines = [*header(estimate, width), "", *table(rows, width=width)]
    if not kept:
        degrees = " ".join(f"{axis}{degree}" for axis, degree in wanted.items())
        lines.append(f"no layout with {degrees} fits")
    if len(kept) > LAYOUTS_SHOWN:
        lines.append(f"and {len(kept) - LAYOUTS_SHOWN} slower ones (--json lists them)")
    if refused:
        why = [("rejected", "why"), *((one.what, one.reason) for one in refused)]
        lines += ["", *table(why, width=width)]
    return "\n".join((*lines, ""))


def _ranked_row(found: Search, one: Ranked) -> tuple[str, ...]:
    ratio = one.step_seconds / found.best.step_seconds
    against = "the plan" if one is found.best else f"{change(ratio)} time"
    peak = f"{gib(one.peak_bytes)} GiB"
    return str(one.candidate), f"{number(one.step_seconds)} s", peak, against


def _agrees(layout: ParallelLayout, wanted: dict[str, int]) -> bool:
    return all(layout.degree(axis) == degree for axis, degree in wanted.items())
