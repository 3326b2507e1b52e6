"""The account of a rank: lines of bytes by module and kind, and whether they fit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from enum import StrEnum

from plans.values import frozen


class Kind(StrEnum):
    """What bytes are there for, in the order in which a run allocates them."""

    WEIGHTS = "weights"
    GRADIENTS = "gradients"
    OPTIMIZER = "optimizer"
    RESERVE = "reserve"
    COMMUNICATION = "communication"
    GRAPHS = "graphs"
    KV_CACHE = "kv_cache"
    SWITCH = "switch"
    ACTIVATIONS = "activations"
    LOGITS = "logits"
    HOST = "host"


@frozen
class Line:
    """Bytes of one module ('layers.mlp.experts') for one purpose."""

    module: str
    kind: Kind
    bytes: float


@frozen
class Account:
    """Everything a rank of a pipeline stage holds at one moment of a phase."""

    phase: str
    moment: str
    stage: int
    lines: tuple[Line, ...]
    rank: int = 0

    @property
    def total(self) -> float:
        """Bytes on the device."""
        return sum(line.bytes for line in self.lines if line.kind != Kind.HOST)

    @property
    def host_total(self) -> float:
        return self.of(Kind.HOST)

    def of(self, *kinds: Kind) -> float:
        return sum(line.bytes for line in self.lines if line.kind in kinds)

    def by_kind(self) -> dict[Kind, float]:
        return {kind: self.of(kind) for kind in Kind if self.of(kind)}

    def by_module(self, depth: int = 1) -> dict[str, float]:
        """Device bytes of each module at a depth of the tree (1: 'layers', 'head')."""
        sums: defaultdict[str, float] = defaultdict(float)
        for line in self.lines:
            if line.kind != Kind.HOST:
                sums[".".join(line.module.split(".")[:depth])] += line.bytes
        return dict(sums)


@frozen
class Verdict:
    """Whether the fullest moment fits; when not, the first line that had no room left."""

    account: Account
    capacity_bytes: float
    breaks: Line | None

    @property
    def fits(self) -> bool:
        return self.breaks is None

    @property
    def missing_bytes(self) -> float:
        return max(0.0, self.account.total - self.capacity_bytes)


def fullest(accounts: Iterable[Account]) -> Account:
    """The account with the most device bytes; the first of equals."""
    return max(accounts, key=lambda account: account.total)


def verdict(accounts: Iterable[Account], capacity_bytes: float) -> Verdict:
    """The fullest account against a capacity; lines fill it in the order of their kinds."""
    account = fullest(accounts)
    order = list(Kind)
    used = 0.0
    for line in sorted(account.lines, key=lambda line: order.index(line.kind)):
        used += line.bytes if line.kind != Kind.HOST else 0.0
        if used > capacity_bytes:
            return Verdict(account=account, capacity_bytes=capacity_bytes, breaks=line)
    return Verdict(account=account, capacity_bytes=capacity_bytes, breaks=None)
