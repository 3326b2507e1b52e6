"""One pool: the ways in which its roles can share its ranks, role by role, none dominated.

Seconds add stage by stage, what is held for the whole run adds, and of what is held for a
phase only the largest counts. The switch is one more stage, after those of the step.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import NamedTuple

from plans.choice import Choice, Ends, Switch
from plans.dataflow import Role
from plans.search.book import Seconds
from plans.search.dominance import undominated
from plans.values import frozen

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


@frozen
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


def pairs_of(
    train: Part, rollout: Part, switch: SwitchOf, ceiling: Ceiling, rest: Seconds
) -> list[Load]:
    """A trained and a rollout choice on the same ranks, with the switch between them.

    Those that are fast enough when the other roles of the pool take `rest`.
    """
    pairs = []
    ordered = sorted(rollout, key=lambda load: load.total)
    limit = ceiling.limit - sum(rest)
    for one in train:
        for other in ordered:
            if one.total + other.total > limit:
                break
            between = switch(one.picks[0], other.picks[0])
            seconds = (*plus(one.seconds, other.seconds)[:-1], between.seconds)
            if not ceiling.admits(plus(seconds, rest)):
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
    near = narrowed(parts, room, ceiling)
    if not near:
        return []
    near = [front(part, ceiling.measures) for part in near]
    loads = near[0]
    for number, part in enumerate(near[1:], start=1):
        rest = _Rest.of(near[number + 1 :], len(ceiling.others))
        loads = front(list(extended(loads, part, rest, room, ceiling)), ceiling.measures)
    fitting = [load for load in loads if room.holds(*load[2:5]) and ceiling.admits(load.seconds)]
    return _fastest(fitting) if ceiling.alone else fitting


def narrowed(parts: Sequence[Part], room: Room, ceiling: Ceiling) -> list[list[Load]]:
    """What of each part can be in a plan, the least that the others take added to it.

    What is left out makes that least larger, so it goes round until nothing changes; nothing is
    left when there is no plan.
    """
    near, waiting = [list(part) for part in parts], list(range(len(parts)))
    while waiting:
        number = waiting.pop(0)
        rest = _Rest.of([*near[:number], *near[number + 1 :]], len(ceiling.others))
        kept = [load for load in near[number] if rest.leaves(load, room, ceiling)]
        if not kept:
            return []
        if len(kept) < len(near[number]):
            near[number] = kept
            others = (other for other in range(len(near)) if other != number)
            waiting += [other for other in others if other not in waiting]
    return near


def front(loads: Part, measures: Measures) -> list[Load]:
    """The loads that no other of the same key dominates."""
    keys: dict[Hashable, list[Load]] = {}
    for load in loads:
        keys.setdefault(load.key, []).append(load)
    return [load for some in keys.values() for load in undominated(some, measures)]


@frozen
class _Rest:
    """The least that the roles not yet joined will take, each respect by itself."""

    total: float
    seconds: Seconds
    resident: Ends
    transient: Ends
    host: float
    last: bool

    @classmethod
    def of(cls, parts: Sequence[Part], stages: int) -> _Rest:
        seconds: Seconds = (0.0,) * stages
        resident, transient, host = NOTHING, NOTHING, 0.0
        for part in parts:
            seconds = plus(seconds, least(part))
            resident = added(resident, _smallest([load.resident for load in part]))
            transient = larger(transient, _smallest([load.transient for load in part]))
            host += min(load.host for load in part)
        return cls(
            total=sum(min(load.total for load in part) for part in parts),
            seconds=seconds,
            resident=resident,
            transient=transient,
            host=host,
            last=not parts,
        )

    def holds(self, load: Load, room: Room) -> bool:
        """Whether these roles may have room beside a load."""
        return room.holds(
            added(load.resident, self.resident),
            larger(load.transient, self.transient),
            load.host + self.host,
        )

    def leaves(self, load: Load, room: Room, ceiling: Ceiling) -> bool:
        """Whether a load may have room beside these roles, and be fast enough with them."""
        if not self.holds(load, room):
            return False
        if ceiling.alone:
            return load.total + self.total <= ceiling.limit
        return ceiling.admits(plus(load.seconds, self.seconds))


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
            if not rest.holds(joined, room):
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


def _smallest(several: Sequence[Ends]) -> Ends:
    """The least of each end, each by itself."""
    return min(one[0] for one in several), min(one[1] for one in several)


def added(one: Ends, other: Ends) -> Ends:
    return one[0] + other[0], one[1] + other[1]


def larger(one: Ends, other: Ends) -> Ends:
    return max(one[0], other[0]), max(one[1], other[1])
