"""Choice: one way in which one role can run on the ranks of a pool, and what it costs alone.

A pool's roles work one after another: their seconds add stage by stage, what they hold for
the whole run adds, and of what they hold for a phase only the largest counts. Those three
are all that a search compares.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Protocol

from plans.dataflow import Role
from plans.layout import ParallelLayout
from plans.placement import RolloutSettings, TrainSettings
from plans.values import frozen

# Bytes on the first and on the last rank of a pool: the first pipeline stage of every role
# stands on the one and the last stage on the other.
Ends = tuple[float, float]


@frozen
class Choice:
    """Layout and settings of a role; exactly one of `train` and `rollout` is given.

    `seconds` are one entry a stage of the step (generate, prepare, update), the switch left
    out. `resident` is held for the whole run, `transient` the most beyond that in any phase
    in which the role works; `host_bytes` of a rank's share of host memory.
    """

    role: Role
    layout: ParallelLayout
    seconds: tuple[float, ...]
    resident: Ends
    transient: Ends
    train: TrainSettings | None = None
    rollout: RolloutSettings | None = None
    host_bytes: float = 0.0

    @property
    def switch_key(self) -> Hashable:
        """What of a choice a switch depends on."""
        return self.layout


@frozen
class Switch:
    """The weight switch between a trained and a rollout choice.

    `shared` are bytes of the rollout's resident weights that are the trainer's own storage, and
    so count once; `staging` the buckets in flight while it lasts.
    """

    seconds: float
    staging: Ends
    shared: Ends = (0.0, 0.0)


class Tables(Protocol):
    """What a search asks of the cost model; `group` is the node group of the pool."""

    def sizes(self, role: Role, group: int = 0) -> Sequence[int]:
        """Numbers of ranks on which the role has a legal layout, ascending; nothing is costed."""
        ...

    def count(self, role: Role, ranks: int, group: int = 0) -> int:
        """How many choices there are on that many ranks; nothing is costed."""
        ...

    def floor(self, role: Role, ranks: int, group: int = 0) -> tuple[float, ...]:
        """Seconds a stage below which no choice on that many ranks or fewer can be; cheap.

        Arithmetic at the device's peak will do: the better it is, the fewer tables a search
        has to build. Zeros are always right.
        """
        ...

    def choices(self, role: Role, ranks: int, group: int = 0) -> Sequence[Choice]:
        """Every legal way to run the role on that many ranks; empty when there is none."""
        ...

    def switch(self, train: Choice, rollout: Choice, *, together: bool, group: int = 0) -> Switch:
        """The switch between two choices, on the same ranks of a group or on different pools.

        It depends on the `switch_key` of the two, and on nothing else of them.
        """
        ...

    def capacity(self, group: int = 0) -> float:
        """Device bytes of a rank of the group, reserve of the process already taken off."""
        ...

    def host_capacity(self, group: int = 0) -> float:
        """Host bytes of a rank's share of its node."""
        ...
