"""How much a plan loses when the model's constants are wrong, and the plan that loses least.

Each scenario is the same job under other constants; a plan's regret there is what it takes
beyond the best plan of that scenario. The choice is the plan whose worst regret is smallest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from plans.workload import Candidate

# Seconds a step of a candidate in a scenario; None when it has no room there.
Seconds = Callable[[Candidate], float | None]
OUT_OF_MEMORY = float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Other constants: the seconds of any plan under them, and the least of all plans."""

    name: str
    seconds: Seconds
    optimum: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Regret:
    """A plan and, scenario by scenario, what it loses as a share of the best there."""

    candidate: Candidate
    losses: Mapping[str, float]

    @property
    def worst(self) -> float:
        return max(self.losses.values())


def regrets(candidates: Sequence[Candidate], scenarios: Sequence[Scenario]) -> list[Regret]:
    """The regret table, the plan that loses least first; of equals the first stays first."""
    table = [
        Regret(
            candidate=candidate,
            losses={one.name: _loss(one, candidate) for one in scenarios},
        )
        for candidate in candidates
    ]
    return sorted(table, key=lambda one: one.worst)


def _loss(scenario: Scenario, candidate: Candidate) -> float:
    seconds = scenario.seconds(candidate)
    return OUT_OF_MEMORY if seconds is None else seconds / scenario.optimum - 1
