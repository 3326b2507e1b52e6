"""Calibrations: the rates of a software stack on a device, with where they come from.

`calibration/<stack>.yaml` holds, for `train` or `generate`, the rates common to the stack and those
of a device; what is not given there comes from the class defaults in `rates.py`. Levels:
datasheet (the defaults), published (fitted on published rows), micro and trace (a user's own
file in the same form).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from plans.source import SpecError, read_yaml
from plans.times.rates import GenerateRates, StepRates, TrainRates

FOLDER = Path(__file__).parent / "calibration"
Level = Literal["datasheet", "published", "micro", "trace"]
Constants = dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Held-out errors of a stack on a device: `sigma` is of the logarithm of measured / model."""

    sigma: float
    error: float
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """One file: constants by device; 'any' is the row of devices that are not listed."""

    stack: str
    title: str
    provenance: str
    level: Level
    train: dict[str, Constants] = field(default_factory=dict)
    generate: dict[str, Constants] = field(default_factory=dict)
    step: dict[str, Constants] = field(default_factory=dict)
    spread: dict[str, Spread] = field(default_factory=dict)

    def train_rates(self, device: str) -> TrainRates:
        return TrainRates(**_constants(self.train, device))

    def generate_rates(self, device: str) -> GenerateRates:
        return GenerateRates(**_constants(self.generate, device))

    def step_rates(self, device: str) -> StepRates:
        return StepRates(**_constants(self.step, device))

    def spread_of(self, kind: str, device: str) -> Spread:
        """Of that kind on that device, else of the kind on any device."""
        found = self.spread.get(f"{kind} {device}") or self.spread.get(f"{kind} any")
        return found or Spread(sigma=0.35, error=0.30, rows=0)


def known_stacks() -> list[str]:
    """The stacks there is a file for, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_calibration(stack: str, level: Level = "published") -> Calibration:
    """The calibration of a stack; the defaults alone for an unknown stack or level datasheet."""
    path = FOLDER / f"{stack}.yaml"
    if level == "datasheet" or not path.exists():
        return Calibration(
            stack=stack, title=stack, provenance="defaults of plans/times/rates.py", level=level
        )
    return read_calibration_file(path)


def read_calibration_file(path: Path) -> Calibration:
    """A calibration from a file in the form of `calibration/`; SpecError for unknown keys."""
    try:
        return TypeAdapter(Calibration).validate_python({**read_yaml(path).data})
    except ValueError as error:
        raise SpecError(f"{path}: {error}") from None


def _constants(table: dict[str, Constants], device: str) -> Constants:
    return {**table.get("any", {}), **table.get(device, {})}
