"""What the fitted rows are predicted to be by constants and anchors that never saw them.

`data/left_out.csv` is written by `python -m benchmarks.calibrate`; the rows in it are those that
the shipped constants and anchors were fitted to.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from plans.values import frozen

FILE = Path(__file__).parent / "data" / "left_out.csv"
COLUMNS = ("id", "predicted", "support")


@frozen
class LeftOut:
    """The value in the row's unit, and how much of it rests on measured neighbours."""

    predicted: float
    support: float


def read_left_out() -> dict[str, LeftOut]:
    """The fitted rows by id; none before the first fit."""
    if not FILE.exists():
        return {}
    with FILE.open(encoding="utf-8", newline="") as file:
        return {
            cells["id"]: LeftOut(
                predicted=float(cells["predicted"]), support=float(cells["support"])
            )
            for cells in csv.DictReader(file)
        }


def write_left_out(found: Mapping[str, LeftOut]) -> None:
    """One line a row, by id."""
    with FILE.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for name, each in sorted(found.items()):
            writer.writerow((name, f"{each.predicted:.6g}", f"{each.support:.3f}"))
