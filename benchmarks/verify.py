"""A plan checked by a solver that shares no code with the search: a program for HiGHS.

Every choice of every role on the ranks of given pools is a binary variable, nothing pruned.
Memory of both ends of each pool, host memory, stages of which the slowest pool counts, and the
switch between the trained and the rollout layout are linear in them. A space of few placements
is solved placement by placement, which is the whole of it; of a larger one only the pools of the
optimum are, and what the search left out there by bounds is not checked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from math import inf

from plans.choice import Choice, Switch
from plans.dataflow import Role
from plans.judging import TOLERANCE, Verification
from plans.search import Asked, problem_of
from plans.search.book import Book
from plans.search.count import count_members
from plans.search.families import families
from plans.search.pool import ROLLOUT, TRAIN
from plans.search.problem import Problem
from plans.search.result import Search
from plans.search.subspace import Pool
from plans.source import UserError
from plans.space import SPACES
from plans.workload import Candidate, Workload

HINT = "the check by a solver needs scipy: pip install 'rlplan[verify]'"
Terms = list[tuple[int, float]]
# Programs that are solved one after another; a fifth of a second each at 16 ranks.
MOST_PLACEMENTS = 64


def verify(search: Search) -> Verification:
    """The optimum of a search, solved again; UserError without scipy."""
    problem = problem_of(search.workload, Asked(space=SPACES[search.space]))
    optimum = _pools(search.workload, search.optimum.candidate)
    return verify_problem(problem, optimum, search.optimum.step_seconds)


def verify_problem(problem: Problem, optimum: Sequence[Pool], searched: float) -> Verification:
    """The least seconds of all placements, or of the pools of the optimum where they are many."""
    book = Book(problem)
    count = count_members(book)
    placements = list(_placements(problem)) if count <= MOST_PLACEMENTS else [optimum]
    solved = [Program(problem, pools).verification(searched) for pools in placements]
    return Verification(
        searched=searched,
        solved=min((one.solved for one in solved if one.solved is not None), default=None),
        variables=sum(one.variables for one in solved),
        constraints=sum(one.constraints for one in solved),
        placements=len(placements),
        of=count,
    )


def _placements(problem: Problem) -> Iterator[tuple[Pool, ...]]:
    """Every way to put the roles on pools that use all ranks."""
    for family in families(problem):
        for sizes in family.listed(problem.ranks):
            yield family.pools(sizes)


class Program:
    """The mixed-integer program of a problem on given pools."""

    def __init__(self, problem: Problem, pools: Sequence[Pool]):
        self.problem = problem
        self.costs: list[float] = []
        self.binary: list[bool] = []
        self.rows: list[tuple[Terms, float, float]] = []
        self.chosen = {
            (number, choice): self._variable(0.0, binary=True)
            for number, pool in enumerate(pools)
            for choice in self._choices(pool)
        }
        self.pools = pools
        self._one_choice_a_role()
        self.switches = list(self._switches())
        self._stages()
        for number in range(len(pools)):
            self._memory(number)
        if problem.one_layout:
            self._one_layout()

    def verification(self, searched: float) -> Verification:
        """Solve; `solved` is None when nothing fits."""
        try:
            from scipy.optimize import Bounds, LinearConstraint, milp
            from scipy.sparse import coo_array
        except ImportError:
            raise UserError(HINT) from None
        entries = [
            (row, column, value)
            for row, (terms, _, _) in enumerate(self.rows)
            for column, value in terms
        ]
        rows, columns, values = zip(*entries, strict=True)
        shape = (len(self.rows), len(self.costs))
        matrix = coo_array((values, (rows, columns)), shape=shape)
        result = milp(
            self.costs,
            integrality=[int(one) for one in self.binary],
            bounds=Bounds(0, [1 if one else inf for one in self.binary]),
            constraints=LinearConstraint(
                matrix, [low for _, low, _ in self.rows], [high for _, _, high in self.rows]
            ),
            options={"mip_rel_gap": TOLERANCE},
        )
        return Verification(
            searched=searched,
            solved=float(result.fun) if result.success else None,
            variables=shape[1],
            constraints=shape[0],
        )

    def _choices(self, pool: Pool) -> Iterator[Choice]:
        for role in pool.roles:
            for choice in self.problem.tables.choices(role, pool.ranks, pool.group):
                if self.problem.admits(choice):
                    yield choice

    def _variable(self, cost: float, *, binary: bool = False) -> int:
        self.costs.append(cost)
        self.binary.append(binary)
        return len(self.costs) - 1

    def _row(self, terms: Terms, low: float = -inf, high: float = inf) -> None:
        self.rows.append((terms, low, high))

    def _one_choice_a_role(self) -> None:
        for some in self._by_role().values():
            self._row([(variable, 1.0) for _, _, variable in some], 1.0, 1.0)

    def _by_role(self) -> dict[Role, list[tuple[int, Choice, int]]]:
        found = defaultdict(list)
        for (number, choice), variable in self.chosen.items():
            found[choice.role].append((number, choice, variable))
        return dict(found)

    def _switches(self) -> Iterator[tuple[Switch, int]]:
        """A variable for each pair of keys, tied to the choices of both sides."""
        sides = self._by_role()
        if TRAIN not in sides or ROLLOUT not in sides:
            return
        together = sides[TRAIN][0][0] == sides[ROLLOUT][0][0]
        keys = [self._keys(sides[role]) for role in (TRAIN, ROLLOUT)]
        flows: tuple[dict[object, Terms], ...] = (defaultdict(list), defaultdict(list))
        for one, trains in keys[0].items():
            for other, rollouts in keys[1].items():
                switch = self.problem.tables.switch(trains[0][0], rollouts[0][0], together=together)
                variable = self._variable(switch.seconds)
                flows[0][one].append((variable, -1.0))
                flows[1][other].append((variable, -1.0))
                yield switch, variable
        for side, flow in zip(keys, flows, strict=True):
            for key, terms in flow.items():
                self._row([*terms, *((variable, 1.0) for _, variable in side[key])], 0.0, 0.0)

    def _keys(self, side: list[tuple[int, Choice, int]]) -> dict[object, list[tuple[Choice, int]]]:
        found = defaultdict(list)
        for _, choice, variable in side:
            found[choice.switch_key].append((choice, variable))
        return dict(found)

    def _stages(self) -> None:
        """A stage lasts as long as the slowest pool works in it."""
        for stage in range(len(next(iter(self.chosen))[1].seconds)):
            length = self._variable(1.0)
            for number in range(len(self.pools)):
                work = [(v, c.seconds[stage]) for (n, c), v in self.chosen.items() if n == number]
                self._row([(length, -1.0), *work], high=0.0)

    def _memory(self, number: int) -> None:
        """What is resident adds, the largest transient counts; in shares of a rank's room."""
        pool, tables = self.pools[number], self.problem.tables
        room, host = tables.capacity(pool.group), tables.host_capacity(pool.group)
        mine = [(choice, v) for (n, choice), v in self.chosen.items() if n == number]
        switches = self.switches if {TRAIN, ROLLOUT} & set(pool.roles) else []
        for end in (0, 1):
            largest = self._variable(0.0)
            held = [(variable, choice.resident[end] / room) for choice, variable in mine]
            held += [(variable, -switch.shared[end] / room) for switch, variable in switches]
            self._row([*held, (largest, 1.0)], high=1.0)
            for role in pool.roles:
                used = [(v, c.transient[end] / room) for c, v in mine if c.role == role]
                self._row([*used, (largest, -1.0)], high=0.0)
            staged = [(variable, switch.staging[end] / room) for switch, variable in switches]
            self._row([*staged, (largest, -1.0)], high=0.0)
        self._row([(variable, choice.host_bytes / host) for choice, variable in mine], high=1.0)

    def _one_layout(self) -> None:
        """A layout is taken by all trained and scored roles or by none."""
        taken: dict[object, int] = {}
        trained = [some for role, some in self._by_role().items() if role != ROLLOUT]
        for some in trained:
            for _, choice, _ in some:
                if choice.layout not in taken:
                    taken[choice.layout] = self._variable(0.0)
        for some in trained:
            for layout, shared in taken.items():
                own = [(variable, 1.0) for _, choice, variable in some if choice.layout == layout]
                self._row([*own, (shared, -1.0)], 0.0, 0.0)


def _pools(workload: Workload, candidate: Candidate) -> tuple[Pool, ...]:
    """The pools of a candidate with the group of nodes that each is on."""
    ends, total = [], 0
    for group in workload.groups:
        total += group.world_size
        ends.append(total)
    return tuple(
        Pool(
            tuple(one.role for one in candidate.placements if one.pool == pool.name),
            pool.rank_count,
            next(number for number, end in enumerate(ends) if pool.first_rank < end),
        )
        for pool in candidate.pools
    )
