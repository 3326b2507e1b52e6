"""Nodes that killed or held up ranks: remembered beside the runs, and kept out for a day.

On a cluster of 63 nodes, three caused more than half of all exclusions (arXiv 2605.09370):
remembering them pays more than clever retries.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from plans.values import frozen
from runtime.files import make_folder, write_json

FILE = "bad-nodes.json"
EXPIRY_SECONDS = 24 * 3600.0


@frozen
class BadNode:
    """A node, why it is kept out, until when (unix seconds), and how often it was."""

    name: str
    reason: str
    until: float
    times: int = 1


def read_bad_nodes(runs: Path, now: float) -> tuple[BadNode, ...]:
    """The nodes that are kept out at this moment, by name."""
    return tuple(node for node in _all(runs) if node.until > now)


def remember(runs: Path, names: Iterable[str], reason: str, now: float) -> None:
    """Keep nodes out for a day from now; how often a node was bad outlasts the day."""
    known = {node.name: node for node in _all(runs)}
    for name in names:
        times = known[name].times + 1 if name in known else 1
        known[name] = BadNode(name=name, reason=reason, until=now + EXPIRY_SECONDS, times=times)
    make_folder(runs)
    write_json(runs / FILE, [asdict(known[name]) for name in sorted(known)])


def _all(runs: Path) -> tuple[BadNode, ...]:
    try:
        rows = json.loads((runs / FILE).read_text())
        return tuple(BadNode(**row) for row in rows)
    except (OSError, ValueError, TypeError):
        return ()  # nothing is known, or nothing readable: no reason not to run
