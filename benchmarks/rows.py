"""Published measurements as rows of a CSV file."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

from plans.source import SpecError

REQUIRED = ("id", "source", "model", "hardware", "value", "unit")
MEMORY = "memory"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measurement; `cells` are the columns as published, empty where nothing was."""

    id: str
    cells: dict[str, str]
    line: int

    def __getitem__(self, column: str) -> str:
        return (self.cells.get(column) or "").strip()

    def number(self, column: str, otherwise: float = 0.0) -> float:
        """The number in a column, `otherwise` when it is empty or not a number."""
        try:
            return float(self[column])
        except ValueError:
            return otherwise

    def count(self, column: str, otherwise: int = 0) -> int:
        return int(self.number(column, otherwise))

    def noted(self, pattern: str) -> str:
        """What the first group of a pattern finds in the notes, '' when nothing."""
        found = re.search(pattern, self["notes"], re.IGNORECASE)
        return found.group(1) if found else ""

    @property
    def measured(self) -> float:
        return self.number("value")

    @property
    def text(self) -> str:
        """Source and notes in lower case, to recognise a stack by."""
        return f"{self['source']} {self['notes']}".lower()


def read_rows(path: Path) -> list[Row]:
    """The rows of a file; SpecError with the line for a missing column or value.

    A file without a column `kind` holds memory readings.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            table = list(csv.DictReader(file))
    except OSError as error:
        raise SpecError(f"{path}: {(error.strerror or 'not readable').lower()}") from None
    if not table:
        raise SpecError(f"{path}: no rows")
    missing = [name for name in REQUIRED if name not in table[0]]
    if missing:
        raise SpecError(f"{path}:1: missing columns: {', '.join(missing)}")
    rows = [
        Row(id=cells["id"], cells={"kind": MEMORY, **cells}, line=line)
        for line, cells in enumerate(table, start=2)
    ]
    wrong = [f"{path}:{row.line}: value: not a positive number" for row in rows if not row.measured]
    if wrong:
        raise SpecError("\n".join(wrong))
    return rows
