"""Fits the constants of a stack to published rows: `python -m benchmarks.fit STACK KIND`.

The sum of squared log errors, large ones counted linearly, plus what it costs to leave the
default of a constant (a log-normal prior). The search goes along one constant after the other
with shrinking steps; no constant belongs to a single row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from hashlib import md5
from math import log
from typing import Any

from benchmarks.predict import Model
from benchmarks.rows import Row
from plans.times.calibration import Calibration, Constants
from plans.times.rates import GenerateRates, TrainRates

ERROR_UNIT = 0.08
LINEAR_FROM = 2.0
FIRST_STEP = 0.25
LAST_STEP = 0.01
BOUNDS = {"overlap": (0.01, 0.98), "share": (0.02, 1.2), "memory_use": (0.5, 0.97), "norm": (1, 4)}
CONFIGURATION = (
    "kind",
    "model",
    "seq_in",
    "seq_out",
    "hardware",
    "gpus",
    "tp",
    "pp",
    "micro_batch",
    "recompute",
)


@dataclass(slots=True, kw_only=True)
class Knob:
    """A constant while it is fitted: of one device, or of 'any'."""

    name: str
    device: str
    prior: float
    tolerance: float
    ratio: float = 1.0
    parent: Knob | None = None

    @property
    def value(self) -> float:
        """The prior, or the stack's value, times the ratio that is fitted; within bounds."""
        value = (self.parent.value if self.parent else self.prior) * self.ratio
        for word, (low, high) in BOUNDS.items():
            if word in self.name:
                return min(high, max(low, value))
        return value

    @property
    def cost(self) -> float:
        return (log(self.ratio) / self.tolerance) ** 2


def configuration(row: Row) -> str:
    """What two rows share when they measure the same thing on another day or release."""
    return "|".join(row[name] for name in CONFIGURATION)


def fold(row: Row, folds: int) -> int:
    """The fold of a row; all rows of a configuration fall into the same one."""
    return int(md5(configuration(row).encode()).hexdigest(), 16) % folds


def fit_stack(
    kinds: tuple[str, ...],
    rows: list[Row],
    names: dict[str, float],
    by_device: dict[str, float],
    start: Calibration,
) -> Calibration:
    """The calibration with the named constants fitted to the rows.

    `names` are common to the stack and `by_device` are of a device as well; the values are the
    tolerances: how far, as a logarithm, a constant may go at the cost of one error unit.
    """
    part = "train" if kinds[0] == "train" else "generate"
    devices = sorted({row["hardware"] for row in rows})
    defaults = _defaults(part)
    table: dict[str, Constants] = {key: dict(value) for key, value in _part(start, part).items()}
    knobs = [_knob(name, "any", table, defaults, tolerance) for name, tolerance in names.items()]
    common = {knob.name: knob for knob in knobs}
    for name, tolerance in by_device.items():
        for device in devices:
            knob = _knob(name, device, table, defaults, tolerance)
            knob.parent = common.get(name)
            knobs.append(knob)

    def calibration() -> Calibration:
        filled = {key: dict(value) for key, value in table.items()}
        for knob in knobs:
            filled.setdefault(knob.device, {})[knob.name] = knob.value
        return replace(start, **{part: filled})

    def loss(device: str) -> float:
        model = Model()
        model.adopt(calibration())
        return sum(_row_loss(model, row) for row in rows if device in ("any", row["hardware"]))

    _descend(knobs, loss)
    return calibration()


def _descend(knobs: list[Knob], loss: Callable[[str], float]) -> None:
    """Pattern search; a constant of a device is judged on the rows of that device alone."""
    steps = {id(knob): FIRST_STEP for knob in knobs}
    while any(step > LAST_STEP for step in steps.values()):
        for knob in knobs:
            step = steps[id(knob)]
            if step > LAST_STEP:
                moved = _improve(knob, step, loss)
                steps[id(knob)] = step * (1.2 if moved else 0.5)


def _improve(knob: Knob, step: float, loss: Callable[[str], float]) -> bool:
    best, kept = loss(knob.device) + knob.cost, knob.ratio
    for factor in (1 + step, 1 / (1 + step)):
        knob.ratio = kept * factor
        if loss(knob.device) + knob.cost < best - 1e-6:
            return True
        knob.ratio = kept
    return False


def _row_loss(model: Model, row: Row) -> float:
    prediction = model.predict(row)
    if prediction.refused:
        return 0.0
    off = abs(log(prediction.predicted / row.measured)) / ERROR_UNIT
    return off**2 if off < LINEAR_FROM else LINEAR_FROM * (2 * off - LINEAR_FROM)


def _knob(
    name: str, device: str, table: dict[str, Constants], defaults: Constants, tolerance: float
) -> Knob:
    start = table.get(device, {}).get(name, table.get("any", {}).get(name, defaults[name]))
    return Knob(name=name, device=device, prior=start, tolerance=tolerance)


def _defaults(part: str) -> Constants:
    rates: Any = TrainRates() if part == "train" else GenerateRates()
    return {each.name: float(getattr(rates, each.name)) for each in fields(rates)}


def _part(calibration: Calibration, part: str) -> dict[str, Constants]:
    found: dict[str, Constants] = getattr(calibration, part)
    return found


def errors(model: Model, rows: Iterable[Row]) -> list[float]:
    """log(predicted / measured) of the rows that are modelled."""
    predictions = [model.predict(row) for row in rows]
    return [log(each.predicted / each.row.measured) for each in predictions if not each.refused]
