"""Rows of measurements as one HTML page: bars with their spread, what stands beside, all rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from plans.reports.charts import Bar, Chart, Piece, svg
from plans.reports.html import document, facts, section, table
from plans.reports.rows import Rows
from plans.reports.words import number
from plans.source import UserError

Row = Mapping[str, Any]
# (key of a row, name in the legend), in the order of the bars
BARS = (
    ("ms", "measured"),
    ("planned_ms", "planned"),
    ("baseline_ms", "baseline"),
    ("limit_ms", "limit of the link"),
)
DEGREES = ("tp", "pp", "dp")
# What tells the rows of a chart apart, in this order.
LABELS = ("what", "name", "m", "phase", "method")
COLUMNS = ("ms", "ms_min", "ms_max", "planned_ms", "baseline_ms", "limit_ms", "times_faster")


def bench_page(rows: Sequence[Row]) -> str:
    """The page; UserError when no row has been measured."""
    drawn = [row for row in rows if row.get("ms") is not None]
    if not drawn:
        raise UserError("nothing was measured: there is nothing to draw")
    title = f"rlplan bench · {', '.join(dict.fromkeys(str(row['bench']) for row in drawn))}"
    return document(title, (f"<h1>{escape(title)}</h1>", *_sections(rows, drawn)))


def _sections(rows: Sequence[Row], drawn: Sequence[Row]) -> Iterator[str]:
    yield from section("Measured on", *facts(_provenance(drawn)))
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in drawn:
        groups.setdefault((str(row["bench"]), str(row.get("model", ""))), []).append(row)
    for (bench, model), its in groups.items():
        name = f"{bench} · {model}"
        yield from section(name, svg(_chart(name, its)), table(_table(its), " nnnnnnn"))
    if refused := [row for row in rows if row.get("refused")]:
        lines: Rows = [("model", "layout", "why it was not measured")]
        lines += [(str(one.get("model", "")), _cut(one), str(one["refused"])) for one in refused]
        yield from section("Not measured", table(lines, ""))


def _provenance(rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
    """Devices, commands and versions, each told once."""
    for key in ("device", "command"):
        for value in dict.fromkeys(str(row[key]) for row in rows if row.get(key)):
            yield key, value
    versions = [row["versions"] for row in rows if row.get("versions")]
    for told in dict.fromkeys(" · ".join(f"{n} {v}" for n, v in one.items()) for one in versions):
        yield "versions", told


def _chart(title: str, rows: Sequence[Row]) -> Chart:
    """A bar for what was measured, with its spread, and one for each figure beside it."""
    bars = []
    for row in rows:
        label = _label(row)
        for key, name in BARS:
            if row.get(key) is None:
                continue
            length, text = float(row[key]), f"{number(row[key])} ms"
            spread = (row["ms_min"], row["ms_max"]) if key == "ms" and "ms_min" in row else None
            piece = Piece(name=name, start=0.0, length=length, note=text)
            bars.append(Bar(label=label, pieces=(piece,), whisker=spread, text=text))
            label = ""
    return Chart(title=title, unit="ms", bars=tuple(bars))


def _table(rows: Sequence[Row]) -> Rows:
    used = [name for name in COLUMNS if any(row.get(name) is not None for row in rows)]
    lines: Rows = [("row", *used)]
    for row in rows:
        cells = ("" if row.get(name) is None else number(row[name]) for name in used)
        lines.append((_label(row), *cells))
    return lines


def _label(row: Row) -> str:
    """'tp2 > 1 gen': the layouts, and what tells the rows of a measurement apart."""
    told = [str(row[name]) for name in LABELS if row.get(name) is not None]
    return " ".join(word for word in (_cut(row), *told) if word)


def _cut(row: Row) -> str:
    sides = [
        "".join(f"{axis}{n}" for axis, n in row[side].items() if axis in DEGREES and n != 1) or "1"
        for side in ("train", "rollout")
        if isinstance(row.get(side), dict)
    ]
    return " > ".join(sides)
