"""What stays when everything that something else beats in every respect has gone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def undominated(items: Iterable[Item], measures: Callable[[Item], Sequence[float]]) -> list[Item]:
    """The items of which no other is at most as large in all measures, smallest first.

    Of equals the first stays, so that the order of the items decides ties.
    """
    measured = [(tuple(measures(item)), item) for item in items]
    measured.sort(key=lambda one: one[0])
    kept: list[tuple[Sequence[float], Item]] = []
    for values, item in measured:
        if not any(_at_most(other, values) for other, _ in kept):
            kept.append((values, item))
    return [item for _, item in kept]


def _at_most(one: Sequence[float], other: Sequence[float]) -> bool:
    # A loop, not all(): it is the innermost of the search, and a generator doubles its time.
    for left, right in zip(one, other, strict=True):  # noqa: SIM110
        if left > right:
            return False
    return True
