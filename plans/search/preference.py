"""Of plans that the model cannot tell apart, the simplest.

A model that is a few percent off does not know which of two plans within 2 % is the faster,
and the simpler one has fewer ways to go wrong: fewer pools, then fewer pipeline stages, then
smaller tensor degrees, then nothing offloaded. Each is found by an exact search of the plans
that have no more of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from plans.search.book import Book
from plans.search.branch import Check, Found, fastest
from plans.search.problem import Limits, offloads

EPSILON = 0.02


def simplest(book: Book, optimum: Found, limit: float, check: Check | None = None) -> Found:
    """The simplest plan that takes at most `limit` seconds a step; the optimum when it is that."""
    chosen, kept = optimum, book.problem.limits
    for axis in ("pools", "pp", "tp", "offload"):
        for smaller in _smaller(chosen, kept, axis):
            narrow = Book(replace(book.problem, limits=smaller), book.shelf)
            found = fastest(narrow, 1, limit, check)
            if found:
                chosen, kept = found[0], smaller
                break
        else:
            kept = replace(kept, **{axis: _amount(chosen, axis)})
    return chosen


def _smaller(found: Found, limits: Limits, axis: str) -> Iterator[Limits]:
    """Limits with less of an axis than the plan has, the least first."""
    has = _amount(found, axis)
    steps = range(has) if axis in ("pools", "offload") else (1 << n for n in range(16))
    for step in steps:
        if step < has and (step or axis == "offload"):
            yield replace(limits, **{axis: step})


def _amount(found: Found, axis: str) -> int:
    """How much of an axis a plan has."""
    if axis == "pools":
        return len(found.pools)
    if axis == "offload":
        return int(any(map(offloads, found.picks)))
    return max(int(getattr(pick.layout, axis)) for pick in found.picks)
