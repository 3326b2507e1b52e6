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
        # Loops, not any() and all(): it is the innermost of the search, and they double its time.
        for other, _ in kept:
            for left, right in zip(other, values, strict=True):
                if left > right:
                    break
            else:
                break
        else:
            kept.append((values, item))
    return [item for _, item in kept]
