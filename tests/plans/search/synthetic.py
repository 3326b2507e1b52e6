"""Tables and problems drawn from a seed: random, but shaped like those of a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from plans.choice import Choice, Switch
from plans.dataflow import Role
from plans.layout import ParallelLayout
from plans.legality import divisors
from plans.placement import RolloutSettings, TrainSettings
from plans.search.problem import Limits, Problem

# Parts of a role's work in the stages generate, prepare and update.
WORK = {
    Role.ACTOR_TRAIN: (0, 1, 3),
    Role.ACTOR_ROLLOUT: (4, 0, 0),
    Role.CRITIC: (0, 1, 3),
    Role.REFERENCE: (0, 1, 0),
    Role.REWARD: (0, 1, 0),
}


class Synthetic:
    """Work divided by ranks, memory that falls with tp and pp, each with noise.

    `share` of the work is known as a floor; `most` choices a role on each number of ranks.
    """

    def __init__(self, seed: int, *, node: int, capacity: float, most: int, share: float):
        self.seed, self.node, self.room = seed, node, capacity
        self.most, self.share = most, share
        self.work = {role: Random(f"{seed}-{role}").uniform(5, 40) for role in Role}
        self.drawn: dict[tuple[Role, int, int], list[Choice]] = {}

    def sizes(self, role: Role, group: int = 0) -> Sequence[int]:  # noqa: ARG002
        return [*(one for one in (1, 2) if one < self.node), *range(self.node, 99, self.node)]

    def count(self, role: Role, ranks: int, group: int = 0) -> int:
        return len(self.choices(role, ranks, group))

    def floor(self, role: Role, ranks: int, group: int = 0) -> tuple[float, ...]:  # noqa: ARG002
        return tuple(self.share * self.work[role] * part / ranks for part in WORK[role])

    def choices(self, role: Role, ranks: int, group: int = 0) -> Sequence[Choice]:
        key = (role, ranks, group)
        if key not in self.drawn:
            draw = Random(f"{self.seed}-{key}")
            found = [
                self._choice(draw, role, ParallelLayout(tp=tp, pp=pp, dp=ranks // tp // pp), size)
                for tp in divisors(min(ranks, self.node))
                for pp in (divisors(ranks // tp) if role != Role.ACTOR_ROLLOUT else [1])
                if pp <= 4
                for size in (1, 2)
            ]
            draw.shuffle(found)
            self.drawn[key] = found[: self.most]
        return self.drawn[key]

    def switch(
        self,
        train: Choice,
        rollout: Choice,
        *,
        together: bool,
        group: int = 0,  # noqa: ARG002
    ) -> Switch:
        draw = Random(f"{self.seed}-{train.layout}-{rollout.layout}-{together}")
        shared = draw.choice([0.0, 1.0]) if together else 0.0
        return Switch(
            seconds=draw.uniform(0, 2),
            staging=(draw.uniform(0, 10), draw.uniform(0, 10)),
            shared=(shared, shared),
        )

    def capacity(self, group: int = 0) -> float:  # noqa: ARG002
        return self.room

    def host_capacity(self, group: int = 0) -> float:  # noqa: ARG002
        return 25.0

    def _choice(self, draw: Random, role: Role, layout: ParallelLayout, size: int) -> Choice:
        each = self.work[role] / layout.world_size
        weights = 60 / (layout.tp * layout.pp) * draw.uniform(0.7, 1.3)
        rolls = role == Role.ACTOR_ROLLOUT
        settings = RolloutSettings(concurrency=size, kv_cache_bytes=size, max_tokens=1)
        return Choice(
            role=role,
            layout=layout,
            seconds=tuple(part * each * draw.uniform(1, 2.5) for part in WORK[role]),
            resident=(weights * draw.uniform(0.3, 1), weights * draw.uniform(0.3, 1)),
            transient=(draw.uniform(2, 20), draw.uniform(2, 20)),
            host_bytes=draw.choice([0.0, 10.0]),
            train=None if rolls else TrainSettings(micro_batch=size),
            rollout=settings if rolls else None,
        )


def problem(seed: int) -> Problem:
    """Two to five roles on one or two groups of a few ranks, often short of memory."""
    draw = Random(seed)
    count = draw.choice([2, 2, 3, 3, 3, 3, 4, 4, 5])
    kept = draw.sample(list(Role), count)
    several = draw.random() < 0.2
    largest = {2: 8, 3: 4, 4: 2, 5: 1}[count]
    tables = Synthetic(
        seed,
        node=draw.choice([2, 4]),
        capacity=draw.uniform(50, 160),
        most={2: 5, 3: 3, 4: 2, 5: 2}[count],
        share=draw.choice([0.0, 0.9]),
    )
    return Problem(
        roles=tuple(role for role in Role if role in kept),
        ranks=(2, 2) if several and count < 4 else (draw.choice([largest, 2]),),
        tables=tables,
        one_layout=draw.random() < 0.2,
        limits=Limits(pools=draw.choice([1, 2, 9, 9])),
    )
