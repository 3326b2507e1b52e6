"""The tables of a problem as the search reads them: each built once, when it is first needed."""

from __future__ import annotations

from collections.abc import Sequence

from plans.choice import Choice
from plans.dataflow import Role
from plans.search.dominance import undominated
from plans.search.problem import Problem, simplicity

Seconds = tuple[float, ...]
Key = tuple[Role, int, int]


class Book:
    """Choices of a role on a number of ranks of a group, and the least seconds of each stage."""

    def __init__(self, problem: Problem, shelf: dict[Key, tuple[Choice, ...]] | None = None):
        """`shelf` holds whole tables; books of the same cluster may share one."""
        self.problem = problem
        self.shelf: dict[Key, tuple[Choice, ...]] = {} if shelf is None else shelf
        self._admitted: dict[Key, tuple[Choice, ...]] = {}
        self._kept: dict[Key, tuple[Choice, ...]] = {}
        self._least: dict[Key, Seconds | None] = {}

    def all_choices(self, role: Role, ranks: int, group: int) -> tuple[Choice, ...]:
        """Every legal choice, simplest first."""
        key = (role, ranks, group)
        if key not in self.shelf:
            found = self.problem.tables.choices(role, ranks, group)
            self.shelf[key] = tuple(sorted(found, key=simplicity))
        return self.shelf[key]

    def admitted(self, role: Role, ranks: int, group: int) -> tuple[Choice, ...]:
        """The choices that agree with what is fixed and that fit when nothing else is there."""
        key = (role, ranks, group)
        if key not in self._admitted:
            self._admitted[key] = tuple(
                choice
                for choice in self.all_choices(*key)
                if self.problem.admits(choice) and self.fits_alone(choice, group)
            )
        return self._admitted[key]

    def kept(self, role: Role, ranks: int, group: int) -> tuple[Choice, ...]:
        """Of the admitted choices of each layout those that no other of it dominates."""
        key = (role, ranks, group)
        if key not in self._kept:
            layouts: dict[object, list[Choice]] = {}
            for choice in self.admitted(*key):
                layouts.setdefault(choice.switch_key, []).append(choice)
            self._kept[key] = tuple(
                choice for some in layouts.values() for choice in undominated(some, measures)
            )
        return self._kept[key]

    def least(self, role: Role, ranks: int, group: int) -> Seconds | None:
        """The least seconds of each stage over the admitted choices; None when there are none."""
        key = (role, ranks, group)
        if key not in self._least:
            self._least[key] = least_seconds(self.admitted(*key))
        return self._least[key]

    def floor(self, role: Role, ranks: int, group: int) -> Seconds:
        """A bound for that many ranks or fewer; it needs no table."""
        return self.problem.tables.floor(role, ranks, group)

    def bound(self, role: Role, ranks: int, group: int) -> Seconds | None:
        """The least seconds of each stage if the table is built, else the floor."""
        key = (role, ranks, group)
        return self._least[key] if key in self._least else self.floor(*key)

    def is_built(self, role: Role, ranks: int, group: int) -> bool:
        return (role, ranks, group) in self._least

    def fits_alone(self, choice: Choice, group: int) -> bool:
        """Whether the pool would do if no other role were on it."""
        tables = self.problem.tables
        room = tables.capacity(group)
        both = zip(choice.resident, choice.transient, strict=True)
        return choice.host_bytes <= tables.host_capacity(group) and all(
            resident + transient <= room for resident, transient in both
        )


def measures(choice: Choice) -> Seconds:
    """What dominance compares of two choices."""
    return (*choice.seconds, *choice.resident, *choice.transient, choice.host_bytes)


def least_seconds(choices: Sequence[Choice]) -> Seconds | None:
    """The least seconds of each stage, each by itself; None when there is no choice."""
    if not choices:
        return None
    return tuple(map(min, zip(*(choice.seconds for choice in choices), strict=True)))
