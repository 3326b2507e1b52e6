"""Which sequences go where: shards of equal tokens, and packs of them within a token budget.

Every rank knows the lengths of the whole batch, so every rank computes the same answer and
nothing has to be agreed on.
"""

from __future__ import annotations

from collections.abc import Sequence

Packs = list[list[int]]


def shards(lengths: Sequence[int], parts: int, together: int = 1) -> Packs:
    """The rows of each of `parts` shards, ascending, their tokens as equal as can be had quickly.

    `together` consecutive rows stay in one shard. Longest first, each to the shard with the
    fewest tokens: at most 4/3 of the best (Graham 1969, "Bounds on multiprocessing timing
    anomalies"). Of equals the first, so that the answer depends on the lengths alone.
    """
    groups = range(0, len(lengths), together)
    tokens = {first: sum(lengths[first : first + together]) for first in groups}
    rows: Packs = [[] for _ in range(parts)]
    loads = [0] * parts
    for first in sorted(groups, key=lambda one: (-tokens[one], one)):
        place = loads.index(min(loads))
        loads[place] += tokens[first]
        rows[place] += range(first, first + together)
    return [sorted(one) for one in rows]


def packs(lengths: Sequence[int], budget: int, together: int = 1, least: int = 1) -> Packs:
    """The rows of each pack: as few packs as `budget` tokens allow, and `least` at the least.

    Rows that belong together and exceed the budget are a pack of their own. With more packs
    than groups of rows some are empty.
    """
    count = max(least, 1, -(-sum(lengths) // budget))
    most = max(count, len(lengths) // together)
    while count < most:
        found = shards(lengths, count, together)
        if max(_tokens(lengths, rows) for rows in found) <= budget:
            return found
        count += 1
    return shards(lengths, most, together)


def rounds(lengths: Sequence[int], shares: Packs, budget: int, together: int = 1) -> int:
    """How many packs each share of the rows is cut into: those of the share that needs most."""
    return max(len(packs([lengths[row] for row in rows], budget, together)) for rows in shares)


def _tokens(lengths: Sequence[int], rows: Sequence[int]) -> int:
    return sum(lengths[row] for row in rows)
