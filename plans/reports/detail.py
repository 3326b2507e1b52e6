"""All that an estimate knows, for `--detail`: the screen, and the tables behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from plans.estimate import Estimate
from plans.reports.compare import answers_text
from plans.reports.facts import levers_of
from plans.reports.rows import Rows, memory_rows, word
from plans.reports.screen import header, joined, phases, placements, summary
from plans.reports.words import COLUMNS, change, number, table
from plans.units import GIB
from plans.whatif import Answer

# Layouts that are listed by their loss.
LAYOUTS_SHOWN = 8
# Kinds of seconds that have a column.
KINDS_SHOWN = 5


def detail_text(estimate: Estimate, width: int = COLUMNS, answers: Sequence[Answer] = ()) -> str:
    """The screen with every phase's parts and bytes, the next layouts, and the what-ifs."""
    blocks = (header, placements, phases, parts, memory, kinds, modules, summary, layouts)
    text = joined(estimate, blocks, width)
    return f"{text}\n{answers_text(estimate, answers, width)}" if answers else text


def parts(estimate: Estimate, width: int = COLUMNS) -> Iterator[str]:
    """Seconds of each phase by kind, the rarest kinds together."""
    found = sorted(levers_of(estimate).items(), key=lambda item: -item[1])
    kinds = [kind for kind, _ in found[:KINDS_SHOWN]]
    rows: Rows = [("seconds of", *map(word, kinds), "other", "in all")]
    for phase in estimate.phases:
        rows.append(_parts_row(phase.name, phase.parts, kinds))
    rows.append(_parts_row("step", dict(found), kinds))
    yield from table(rows, " " + "r" * len(rows[0]), width)


def _parts_row(name: str, seconds: Mapping[str, float], kinds: list[str]) -> tuple[str, ...]:
    cells = [seconds.get(kind, 0.0) for kind in kinds]
    whole = sum(seconds.values())
    rest = max(0.0, whole - sum(cells))
    texts = (number(cell) if cell > 1e-9 * whole else "-" for cell in (*cells, rest, whole))
    return (name, *texts)


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


def modules(estimate: Estimate, width: int = COLUMNS) -> Iterator[str]:
    """The same moment by module."""
    peak = estimate.peak
    rows = [("module", "GiB", "of the device")]
    for name, count in sorted(peak.modules.items(), key=lambda item: -item[1]):
        rows.append((name, number(count / GIB), f"{count / peak.capacity_bytes:.1%}"))
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
