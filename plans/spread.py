"""The interval that is stated with planned seconds: errors are taken to be log-normal."""

from __future__ import annotations

from math import exp

# Share of what is measured that lies within the interval.
COVERED = 0.8
# Of a standard normal distribution: the same share lies between it and its negative.
QUANTILE = 1.2815515655446004


def ends_of(sigma: float) -> tuple[float, float]:
    """Factors from planned seconds to both ends; `sigma` of log(measured / planned)."""
    width = exp(QUANTILE * sigma)
    return 1 / width, width
