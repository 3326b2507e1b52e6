"""Fits the constants of a stack to published rows: `python -m benchmarks.fit STACK KIND`.

The sum of squared log errors, large ones counted linearly, plus what it costs to leave the
default of a constant (a log-normal prior). The search goes along one constant after the other
with shrinking steps; no constant belongs to a single row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from hashlib import md5
from math import log
from typing import Any

from benchmarks.predict import Model
from benchmarks.rows import Row
from plans.times.calibration import Calibration, Constants
from plans.times.rates import GenerateRates, StepRates, TrainRates

ERROR_UNIT = 0.08
LINEAR_FROM = 2.0
FIRST_STEP = 0.25
LAST_STEP = 0.015
BOUNDS = {"overlap": (0.01, 0.98), "share": (0.02, 1.2), "memory_use": (0.5, 0.97), "norm": (1, 4)}
DEFAULTS: dict[str, Any] = {
    "train": TrainRates(),
    "generate": GenerateRates(),
    "step": StepRates(),
}
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
    rows: list[Row],
    common: dict[str, float],
    by_device: dict[str, float],
    start: Calibration,
    last_step: float = LAST_STEP,
) -> Calibration:
    """The calibration with the named constants fitted to the rows.

    Names are `train.gemm_share`, `generate.layer_us`, `step.fixed_seconds` and the like; `common`
    holds for the stack and `by_device` for a device as well. The values are tolerances: how far,
    as a logarithm, a constant may go at the cost of one error unit.
    """
    devices = sorted({row["hardware"] for row in rows})
    knobs = [_knob(name, "any", start, tolerance) for name, tolerance in common.items()]
    parents = {knob.name: knob for knob in knobs}
    for name, tolerance in by_device.items():
        for device in devices:
            knob = _knob(name, device, start, tolerance)
            knob.parent = parents.get(name)
            knobs.append(knob)

    def loss(device: str) -> float:
        model = Model()
        model.adopt(_filled(start, knobs))
        return sum(_row_loss(model, row) for row in rows if device in ("any", row["hardware"]))

    _descend(knobs, loss, last_step)
    return _filled(start, knobs)


def _filled(start: Calibration, knobs: list[Knob]) -> Calibration:
    """The calibration with the present values of the knobs."""
    parts: dict[str, dict[str, Constants]] = {
        name: {key: dict(value) for key, value in getattr(start, name).items()} for name in DEFAULTS
    }
    for knob in knobs:
        part, name = knob.name.split(".")
        parts[part].setdefault(knob.device, {})[name] = knob.value
    return replace(start, train=parts["train"], generate=parts["generate"], step=parts["step"])


def _descend(knobs: list[Knob], loss: Callable[[str], float], last_step: float) -> None:
    """Pattern search; a constant of a device is judged on the rows of that device alone."""
    steps = {id(knob): FIRST_STEP for knob in knobs}
    while any(step > last_step for step in steps.values()):
        for knob in knobs:
            step = steps[id(knob)]
            if step > last_step:
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


def _knob(name: str, device: str, start: Calibration, tolerance: float) -> Knob:
    part, constant = name.split(".")
    table: dict[str, Constants] = getattr(start, part)
    prior = float(getattr(DEFAULTS[part], constant))
    for key in ("any", device):
        prior = table.get(key, {}).get(constant, prior)
    return Knob(name=name, device=device, prior=prior, tolerance=tolerance)


def errors(model: Model, rows: Iterable[Row]) -> list[float]:
    """log(predicted / measured) of the rows that are modelled."""
    predictions = [model.predict(row) for row in rows]
    return [log(each.predicted / each.row.measured) for each in predictions if not each.refused]
