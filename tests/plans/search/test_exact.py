"""The search against every plan looked at: on small random problems they agree."""

from dataclasses import replace

import pytest

from plans.search.book import Book
from plans.search.branch import Progress, fastest
from plans.search.count import count_members, count_plans
from plans.search.families import families
from plans.search.preference import simplest
from plans.search.problem import Fix
from tests.plans.search import brute
from tests.plans.search.synthetic import Synthetic, problem

INSTANCES = range(240)
FEW = range(0, 240, 8)


def seconds_of(found):
    return found[0].seconds if found else None


def test_the_search_finds_what_looking_at_every_plan_finds():
    feasible = 0
    for seed in INSTANCES:
        drawn = problem(seed)
        best, count = brute.fastest(drawn)
        book = Book(drawn)
        assert seconds_of(fastest(book)) == pytest.approx(best), seed
        assert count_plans(book) == count, seed
        feasible += best is not None
    assert 60 < feasible < 235


@pytest.mark.parametrize("seed", FEW)
def test_the_bound_before_the_search_is_not_above_the_optimum(seed):
    progress = Progress()
    found = fastest(Book(problem(seed)), progress=progress)
    if found:
        assert progress.root <= found[0].seconds * (1 + 1e-9)


@pytest.mark.parametrize("seed", FEW)
def test_the_next_best_come_in_order_and_each_in_layouts_of_its_own(seed):
    drawn = problem(seed)
    found = fastest(Book(drawn), wanted=6)
    seconds = [one.seconds for one in found]
    assert seconds == sorted(seconds)
    shapes = [(one.pools, tuple(pick.layout for pick in one.picks)) for one in found]
    assert len(set(shapes)) == len(shapes)
    fits = {}
    for picks, homes in brute.every_plan(drawn):
        step = brute.step(drawn, picks, homes)
        shape = frozenset(
            (one.role, one.layout, home) for one, home in zip(picks, homes, strict=True)
        )
        if step is not None:
            fits[shape] = min(step, fits.get(shape, step))
    assert seconds == pytest.approx(sorted(fits.values())[:6])


@pytest.mark.parametrize("seed", FEW)
def test_a_plan_that_fails_its_check_is_cut_and_the_next_best_of_all_is_found(seed):
    drawn = problem(seed)
    refused = []

    def third_time(found):
        refused.append(found.seconds)
        return len(refused) > 2

    found = fastest(Book(drawn), check=third_time)
    steps = sorted(
        step for plan in brute.every_plan(drawn) if (step := brute.step(drawn, *plan)) is not None
    )
    assert seconds_of(found) == pytest.approx(steps[2] if len(steps) > 2 else None)


@pytest.mark.parametrize("seed", FEW)
def test_two_searches_find_the_same(seed):
    first, second = (fastest(Book(problem(seed)), wanted=3) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("seed", FEW)
def test_more_memory_is_never_slower(seed):
    drawn = problem(seed)
    tables = drawn.tables
    assert isinstance(tables, Synthetic)
    last = float("inf")
    for room in (40, 60, 90, 140, 400):
        tables.room = room
        step = seconds_of(fastest(Book(drawn))) or float("inf")
        assert step <= last * (1 + 1e-9)
        last = step


@pytest.mark.parametrize("seed", FEW)
def test_the_simplest_plan_is_within_the_tolerance_and_no_simpler_one_is(seed):
    drawn = problem(seed)
    book = Book(drawn)
    found = fastest(book)
    if not found:
        return
    limit = found[0].seconds * 1.25
    chosen = simplest(book, found[0], limit)
    assert chosen.seconds <= limit * (1 + 1e-9)

    def order(picks, pools):
        return (
            pools,
            max(one.layout.pp for one in picks),
            max(one.layout.tp for one in picks),
        )

    orders = [
        order(picks, len(set(homes)))
        for picks, homes in brute.every_plan(drawn)
        if (brute.step(drawn, picks, homes) or limit + 1) <= limit
    ]
    assert order(chosen.picks, len(chosen.pools)) == min(orders)


@pytest.mark.parametrize("seed", FEW)
def test_what_is_fixed_is_kept_and_never_makes_a_plan_faster(seed):
    drawn = problem(seed)
    free = fastest(Book(drawn))
    fix = Fix(role=drawn.roles[0], axis="tp", value=2)
    fixed = fastest(Book(replace(drawn, fixed=(fix,))))
    if fixed:
        assert fixed[0].seconds >= free[0].seconds * (1 - 1e-9)
        assert all(fix.agrees(pick) for pick in fixed[0].picks)


def test_members_are_counted_as_they_are_listed():
    for seed in FEW:
        drawn = problem(seed)
        listed = [len(list(one.listed(drawn.ranks))) for one in families(drawn)]
        assert count_members(Book(drawn)) == sum(listed)
