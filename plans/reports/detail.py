"""All that an estimate knows, for `--detail`: the screen, and the tables behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from plans.estimate import Estimate
from plans.reports.compare import answers_text
from plans.reports.facts import levers_of
from plans.reports.rows import memory_rows, word
from plans.reports.screen import header, joined, phases, placements, summary
from plans.reports.words import COLUMNS, change, number, table
from plans.units import GIB
from plans.whatif import Answer

# Layouts that are listed by their loss.
LAYOUTS_SHOWN = 8


def detail_text(estimate: Estimate, width: int = COLUMNS, answers: Sequence[Answer] = ()) -> str:
    """The screen with every phase's parts and bytes, the next layouts, and the what-ifs."""
    blocks = (header, placements, phases, parts, memory, kinds, summary, layouts)
    text = joined(estimate, blocks, width)
    return f"{text}\n{answers_text(estimate, answers, width)}" if answers else text


def parts(estimate: Estimate, width: int = COLUMNS) -> Iterator[str]:
    """Seconds of each phase by kind."""
    found = sorted(levers_of(estimate).items(), key=lambda item: -item[1])
    rows = [("seconds of", *(word(kind) for kind, _ in found))]
    for phase in estimate.phases:
        cells = (phase.parts.get(kind, 0.0) for kind, _ in found)
        rows.append((phase.name, *(number(part) if part else "-" for part in cells)))
    rows.append(("step", *(number(part) for _, part in found)))
    yield from table(rows, " " + "r" * len(found), width)


def memory(estimate: Estimate, width: int = COLUMNS) -> Iterator[str]:
    """Every phase."""
    rows = memory_rows(estimate.memory)
    yield from table(rows, " " + "r" * len(rows[0]), width)


def kinds(estimate: Estimate, width: int = COLUMNS) -> Iterator[str]:
    """The account of the fullest moment, line by line."""
    peak = estimate.peak
    rows = [(f"{peak.phase}, rank {peak.rank}", "GiB", "of the device")]
    for kind, count in sorted(peak.kinds.items(), key=lambda item: -item[1]):
        rows.append((word(kind), number(count / GIB), f"{count / peak.capacity_bytes:.1%}"))
    total = (number(peak.total / GIB), f"{peak.share:.1%}")
    rows.append(("total", *total))
    yield from table(rows, " rr", width)


def layouts(estimate: Estimate, width: int = COLUMNS) -> Iterator[str]:
    """The next layouts and what they lose."""
    found = estimate.search
    rows = [("layout", "step", "peak GiB", "time")]
    for one in found.ranked[:LAYOUTS_SHOWN]:
        ratio = change(one.step_seconds / found.best.step_seconds)
        peak = number(one.peak_bytes / GIB)
        rows.append((str(one.candidate), f"{number(one.step_seconds)} s", peak, ratio))
    yield from table(rows, " rrr", width)
