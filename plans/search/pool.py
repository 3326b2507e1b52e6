"""One pool: the ways in which its roles can share its ranks, role by role, none dominated.

Seconds add stage by stage, what is held for the whole run adds, and of what is held for a
phase only the largest counts. The switch is one more stage, after those of the step.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from plans.choice import Choice, Ends, Switch
from plans.dataflow import Role
from plans.search.book import Seconds
from plans.search.dominance import undominated

NOTHING: Ends = (0.0, 0.0)
TRAIN, ROLLOUT = Role.ACTOR_TRAIN, Role.ACTOR_ROLLOUT


class Load(NamedTuple):
    """What some roles of a pool take together; `key` is set while their switch is still open."""

    total: float
    seconds: Seconds
    resident: Ends
    transient: Ends
    host: float
    picks: tuple[Choice, ...]
    key: Hashable = None


class Room(NamedTuple):
    """Bytes of a rank, on its device and on its host."""

    device: float
    host: float

    def holds(self, resident: Ends, transient: Ends, host: float) -> bool:
        return (
            resident[0] + transient[0] <= self.device
            and resident[1] + transient[1] <= self.device
            and host <= self.host
        )


Part = Sequence[Load]
Measures = Callable[[Load], Sequence[float]]
SwitchOf = Callable[[Choice, Choice], Switch]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """The seconds that a step may take while the `others`, the other pools, need at least theirs.

    `alone`: there are none, so that only the sum over the stages counts.
    """

    limit: float
    others: Seconds
    alone: bool

    def admits(self, seconds: Seconds) -> bool:
        """Whether a step in which this pool takes these seconds is fast enough."""
        return step_seconds((seconds, self.others)) <= self.limit

    @property
    def measures(self) -> Measures:
        """What dominance compares of loads of a pool that is not yet whole."""
        return _measures_alone if self.alone else _measures


def step_seconds(pools: Sequence[Seconds]) -> float:
    """Stage by stage the slowest pool."""
    return float(sum([max(stage) for stage in zip(*pools, strict=True)]))


def part_of(choices: Sequence[Choice], *, keyed: bool) -> list[Load]:
    """The choices of one role; with `keyed` they remember what their switch depends on."""
    return [
        Load(
            sum(choice.seconds),
            (*choice.seconds, 0.0),
            choice.resident,
            choice.transient,
            choice.host_bytes,
            (choice,),
            choice.switch_key if keyed else None,
        )
        for choice in choices
    ]


def pairs_of(train: Part, rollout: Part, switch: SwitchOf, ceiling: Ceiling) -> list[Load]:
    """A trained and a rollout choice on the same ranks, with the switch between them."""
    pairs = []
    for one in train:
        for other in rollout:
            between = switch(one.picks[0], other.picks[0])
            seconds = (*plus(one.seconds, other.seconds)[:-1], between.seconds)
            if not ceiling.admits(seconds):
                continue
            both, shared = added(one.resident, other.resident), between.shared
            pairs.append(
                Load(
                    sum(seconds),
                    seconds,
                    (both[0] - shared[0], both[1] - shared[1]),
                    larger(larger(one.transient, other.transient), between.staging),
                    one.host + other.host,
                    one.picks + other.picks,
                )
            )
    return pairs


def merged(parts: Sequence[Part], room: Room, ceiling: Ceiling) -> list[Load]:
    """The roles of a pool together, within the room and the ceiling; none is dominated.

    With no other pool, only the fastest is left.
    """
    loads = front(parts[0], ceiling.measures) if len(parts) > 1 else list(parts[0])
    for number, part in enumerate(parts[1:], start=1):
        rest = _Rest.of(parts[number + 1 :], len(ceiling.others))
        loads = front(list(extended(loads, part, rest, room, ceiling)), ceiling.measures)
    fitting = [load for load in loads if room.holds(*load[2:5]) and ceiling.admits(load.seconds)]
    return _fastest(fitting) if ceiling.alone else fitting


def front(loads: Part, measures: Measures) -> list[Load]:
    """The loads that no other of the same key dominates."""
    keys: dict[Hashable, list[Load]] = {}
    for load in loads:
        keys.setdefault(load.key, []).append(load)
    return [load for some in keys.values() for load in undominated(some, measures)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rest:
    """The least that the roles not yet joined will take, each respect by itself."""

    total: float
    seconds: Seconds
    resident: Ends
    host: float
    last: bool

    @classmethod
    def of(cls, parts: Sequence[Part], stages: int) -> _Rest:
        seconds: Seconds = (0.0,) * stages
        resident, host = NOTHING, 0.0
        for part in parts:
            seconds = plus(seconds, least(part))
            ends = min(load.resident[0] for load in part), min(load.resident[1] for load in part)
            resident = added(resident, ends)
            host += min(load.host for load in part)
        total = sum(min(load.total for load in part) for part in parts)
        return cls(total=total, seconds=seconds, resident=resident, host=host, last=not parts)


def extended(loads: Part, part: Part, rest: _Rest, room: Room, ceiling: Ceiling) -> Iterator[Load]:
    """Every load with one more role, as far as what is left to join may still fit.

    When nothing is left and there is no other pool, each one is faster than the one before.
    """
    ordered = sorted(part, key=lambda load: load.total)
    limit, last = ceiling.limit - rest.total, ceiling.alone and rest.last
    for one in loads:
        for other in ordered:
            if one.total + other.total > limit:
                break
            joined = both(one, other)
            if not room.holds(
                added(joined.resident, rest.resident), joined.transient, joined.host + rest.host
            ):
                continue
            if ceiling.alone or ceiling.admits(plus(joined.seconds, rest.seconds)):
                yield joined
            if last:
                limit = joined.total
                break


def both(one: Load, other: Load) -> Load:
    return Load(
        one.total + other.total,
        plus(one.seconds, other.seconds),
        added(one.resident, other.resident),
        larger(one.transient, other.transient),
        one.host + other.host,
        one.picks + other.picks,
        one.key or other.key,
    )


def _fastest(loads: Part) -> list[Load]:
    return sorted(loads, key=lambda load: load.total)[:1]


def _measures(load: Load) -> Seconds:
    return (*load.seconds, *load.resident, *load.transient, load.host)


def _measures_alone(load: Load) -> Seconds:
    return (load.total, *load.resident, *load.transient, load.host)


def plus(one: Seconds, other: Seconds) -> Seconds:
    return tuple([left + right for left, right in zip(one, other, strict=True)])


def least(part: Part) -> Seconds:
    """The least seconds of each stage, each by itself."""
    return tuple(map(min, zip(*(load.seconds for load in part), strict=True)))


def added(one: Ends, other: Ends) -> Ends:
    return one[0] + other[0], one[1] + other[1]


def larger(one: Ends, other: Ends) -> Ends:
    return max(one[0], other[0]), max(one[1], other[1])
