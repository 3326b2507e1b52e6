"""`rlplan bench validate FILE.csv`: published measurements against the time model.

Rows whose id stands in `data/fitted.txt` took part in fitting the constants and are reported
apart from the rest.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.memory_rows import fitted_memory_ids, predict_memory
from benchmarks.predict import Model, Prediction
from benchmarks.rows import MEMORY, Row, read_rows
from benchmarks.statistics import Summary, summary
from plans.times.calibration import Level

FITTED = Path(__file__).parent / "data" / "fitted.txt"
HEADINGS = ("kind", "hardware", "stack", "rows", "n", "MAPE", "median", "worst", "bias")


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """Every row of a file beside the model, and what they come to by group."""

    level: Level
    predictions: tuple[Prediction, ...]
    fitted: frozenset[str]

    @property
    def refused(self) -> tuple[Prediction, ...]:
        return tuple(each for each in self.predictions if each.refused)

    @property
    def groups(self) -> dict[tuple[str, str, str, bool], Summary]:
        """By kind, hardware, stack and whether the rows were fitted, in that order."""
        found: dict[tuple[str, str, str, bool], list[Prediction]] = defaultdict(list)
        for each in self.predictions:
            if not each.refused:
                row = each.row
                found[row["kind"], row["hardware"], each.stack, self.was_fitted(each)].append(each)
        return {key: summary(found[key]) for key in sorted(found)}

    def was_fitted(self, prediction: Prediction) -> bool:
        return prediction.row.id in self.fitted

    def total(self, kind: str, fitted: bool) -> Summary | None:
        """Of all rows of a kind, None when there are none."""
        rows = [
            each
            for each in self.predictions
            if each.row["kind"] == kind and self.was_fitted(each) == fitted and not each.refused
        ]
        return summary(rows) if rows else None


def validate(path: Path, level: Level = "published") -> Validation:
    """The rows of a file in the columns of `data/validation.csv`, predicted at that level.

    SpecError for a file that cannot be read; a row that cannot be modelled is refused with
    its reason and does not end the run.
    """
    model = Model(level)
    predictions = tuple(_predict(model, row) for row in read_rows(path))
    return Validation(level=level, predictions=predictions, fitted=fitted_ids())


def _predict(model: Model, row: Row) -> Prediction:
    if row["kind"] != MEMORY:
        return model.predict(row)
    predicted, low, high, _, refused = predict_memory(row.cells, model.level)
    return Prediction(
        row=row,
        stack=row["stack"] or "unknown",
        predicted=predicted,
        low=low,
        high=high,
        refused=refused,
    )


def fitted_ids() -> frozenset[str]:
    """Ids of the rows the shipped constants of time and memory were fitted to."""
    lines = FITTED.read_text(encoding="utf-8").splitlines() if FITTED.exists() else []
    times = frozenset(line for line in lines if line and not line.startswith("#"))
    return times | fitted_memory_ids()


def to_json(result: Validation) -> dict[str, Any]:
    """Rows and groups as plain values."""
    return {
        "level": result.level,
        "rows": [_row(each, result.was_fitted(each)) for each in result.predictions],
        "groups": [
            {"kind": kind, "hardware": hardware, "stack": stack, "fitted": fitted, **asdict(found)}
            for (kind, hardware, stack, fitted), found in result.groups.items()
        ],
    }


def report_text(result: Validation) -> str:
    """The groups, fitted and not, the sums of a kind, and the refused rows with reasons."""
    table: list[tuple[str, ...]] = [(*HEADINGS, "in 80 %", "rank")]
    for (kind, hardware, stack, fitted), found in result.groups.items():
        table.append((kind, hardware, stack, _which(fitted), *_figures(found)))
    for kind in sorted({each.row["kind"] for each in result.predictions}):
        for fitted in (True, False):
            whole = result.total(kind, fitted)
            if whole:
                table.append((kind, "all", "all", _which(fitted), *_figures(whole)))
    lines = [f"level: {result.level}", "", *_aligned(table), "", *_refusals(result)]
    return "\n".join(lines) + "\n"


def _row(prediction: Prediction, fitted: bool) -> dict[str, Any]:
    row = prediction.row
    values = {"predicted": prediction.predicted, "low": prediction.low, "high": prediction.high}
    return {
        "id": row.id,
        "kind": row["kind"],
        "hardware": row["hardware"],
        "stack": prediction.stack,
        "unit": row["unit"],
        "measured": row.measured,
        **(dict.fromkeys(values) if prediction.refused else values),
        "fitted": fitted,
        "refused": prediction.refused or None,
    }


def _which(fitted: bool) -> str:
    return "fitted" if fitted else "held out"


def _figures(found: Summary) -> tuple[str, ...]:
    shares = (found.mape, found.median, found.worst)
    rank = "-" if found.spearman is None else f"{found.spearman:.2f}"
    return (
        str(found.n),
        *(f"{100 * share:.1f} %" for share in shares),
        f"{100 * found.bias:+.1f} %",
        f"{100 * found.coverage:.0f} %",
        rank,
    )


def _aligned(table: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column < 4 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]


def _refusals(result: Validation) -> list[str]:
    refused, total = result.refused, len(result.predictions)
    head = f"refused: {len(refused)} of {total} rows ({100 * len(refused) / total:.1f} %)"
    return [head, *(f"  {each.row.id}: {each.refused}" for each in refused)]
