"""What a set of predictions is worth: relative errors, coverage, rank correlation."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import fmean, median

from benchmarks.predict import Prediction
from plans.values import frozen


@frozen
class Summary:
    """Of `n` rows: relative errors in shares of the measured value, positive when too high.

    `coverage` is the share of rows inside the stated 80 % interval, `spearman` the rank
    correlation of measured and predicted (None under three rows).
    """

    n: int
    mape: float
    median: float
    worst: float
    bias: float
    coverage: float
    spearman: float | None


def summary(predictions: Sequence[Prediction]) -> Summary:
    """The summary of at least one prediction that was not refused."""
    errors = [each.predicted / each.row.measured - 1 for each in predictions]
    sizes = [abs(error) for error in errors]
    inside = [each.low <= each.row.measured <= each.high for each in predictions]
    measured = [each.row.measured for each in predictions]
    return Summary(
        n=len(errors),
        mape=fmean(sizes),
        median=median(sizes),
        worst=max(sizes),
        bias=fmean(errors),
        coverage=fmean(inside),
        spearman=spearman(measured, [each.predicted for each in predictions]),
    )


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Rank correlation with mean ranks for ties; None when it is not defined."""
    if len(first) < 3:
        return None
    a, b = _ranks(first), _ranks(second)
    middle = fmean(a)
    across = sum((x - middle) * (y - middle) for x, y in zip(a, b, strict=True))
    spread = sqrt(sum((x - middle) ** 2 for x in a) * sum((y - middle) ** 2 for y in b))
    return across / spread if spread else None


def _ranks(values: Sequence[float]) -> list[float]:
    order = sorted(range(len(values)), key=lambda index: values[index])
    ranks = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end < len(order) and values[order[end]] == values[order[start]]:
            end += 1
        for index in order[start:end]:
            ranks[index] = (start + end - 1) / 2
        start = end
    return ranks
