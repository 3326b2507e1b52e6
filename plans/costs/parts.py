"""Parts: the seconds of a phase by what they go to.

compute, memory, link (within a node), nic (between nodes), launch (the device waits for the
host), bubble (a pipeline fills), optimizer, host, prefill, body and tail (of a generation), and
stack: what whole steps were found to take beyond the sum of the engines' own times.
"""

from __future__ import annotations

from collections.abc import Mapping

Parts = dict[str, float]
STACK = "stack"


def scaled(parts: Mapping[str, float], factor: float) -> Parts:
    """Each part times a factor; what is nothing is left out."""
    return {kind: seconds * factor for kind, seconds in parts.items() if seconds}


def with_stack(parts: Mapping[str, float], factor: float) -> Parts:
    """The parts, and beside them what multiplies their sum by `factor`."""
    extra = (factor - 1) * sum(parts.values())
    return {**parts, STACK: extra} if extra else dict(parts)


def added(*several: Mapping[str, float]) -> Parts:
    """The sum, kind by kind."""
    total: Parts = {}
    for parts in several:
        for kind, seconds in parts.items():
            total[kind] = total.get(kind, 0.0) + seconds
    return total


def largest(parts: Mapping[str, float]) -> str:
    """The kind that takes most, what the stack adds left out; the first wins a tie."""
    kinds = {kind: seconds for kind, seconds in parts.items() if kind != STACK} or {"host": 0.0}
    return max(kinds, key=lambda kind: kinds[kind])
