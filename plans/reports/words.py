"""How reports say numbers, and how they lay out lines and tables for a terminal.

Every text is made for a width in columns that the caller gives; a table whose rows are wider
continues its last column below itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import floor, log10

from plans.units import GIB

COLUMNS = 100
LEAST_COLUMNS = 60
NAME_COLUMNS = 13
GAP = "  "
SEPARATOR = " · "


def number(value: float, digits: int = 3) -> str:
    """A number as a table shows it: '1,640', '61.2', '0.0064', '0.00017', never an exponent."""
    if value < 0:
        return f"-{number(-value, digits)}"
    if value >= 1000 or value == 0:
        return f"{value:,.0f}"
    digits = min(digits, 2) if value < 0.1 else digits
    value = float(f"{value:.{digits}g}")
    return f"{value:.{max(0, digits - 1 - floor(log10(value)))}f}"


def short_count(value: float) -> str:
    """A large count with a unit of thousands: '8,308', '41.3 k', '12.1 M', '3.2 G'."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{value / (1e3 if unit == 'k' else size):.3g} {unit}"
    return f"{value:,.0f}"


def gib(count: float) -> str:
    """Bytes in GiB, without the unit; '-' for none."""
    return number(count / GIB) if count else "-"


def change(ratio: float) -> str:
    """A ratio as what it adds: 1.08 is '+8.0%', 2.5 '2.5x'; '=' below a twentieth of a percent."""
    if ratio >= 2:
        return f"{number(ratio)}x"
    return "=" if abs(ratio - 1) < 0.0005 else f"{ratio - 1:+.1%}"


def plural(count: int, noun: str) -> str:
    """'1 job', '3 jobs'."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def named(name: str, text: str, width: int = COLUMNS) -> Iterator[str]:
    """A named text, wrapped under itself."""
    room = max(LEAST_COLUMNS, width) - NAME_COLUMNS
    lines = wrapped(text, room)
    for index, line in enumerate(lines):
        yield f"{name if index == 0 else '':<{NAME_COLUMNS}}{line}".rstrip()


def wrapped(text: str, width: int) -> list[str]:
    """The words of a text in lines of at most `width`, one line at least; long words stay whole.

    As the standard library's textwrap, which takes longer to import than an estimate to print.
    """
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}" if lines[-1] else word
    return lines


def table(rows: Iterable[Sequence[str]], right: str = "", width: int = COLUMNS) -> Iterator[str]:
    """Rows of cells as aligned lines; a column is right-aligned where `right` has an 'r'.

    A table wider than `width` has one blank between its columns, and its last column wraps
    below itself.
    """
    cells = [list(row) for row in rows]
    count = max(map(len, cells))
    cells = [row + [""] * (count - len(row)) for row in cells]
    sizes = [max(len(row[index]) for row in cells) for index in range(count)]
    gap = GAP if sum(sizes) + len(GAP) * (count - 1) <= width else " "
    room = max(12, max(LEAST_COLUMNS, width) - sum(sizes[:-1]) - len(gap) * (count - 1))
    for row in cells:
        start = gap.join(
            cell.rjust(size) if right[index : index + 1] == "r" else cell.ljust(size)
            for index, (cell, size) in enumerate(zip(row[:-1], sizes, strict=False))
        )
        last = wrapped(row[-1], room)
        if right[count - 1 : count] == "r":
            last = [last[0].rjust(sizes[-1])]
        for index, line in enumerate(last):
            yield f"{start if index == 0 else ' ' * len(start)}{gap}{line}".rstrip()
