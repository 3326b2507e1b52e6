"""The search against HiGHS: an independent solver finds the same optimum."""

from dataclasses import replace

import pytest

from benchmarks.verify import Program, verify, verify_problem
from plans.search import Asked, search_workload
from plans.search.book import Book
from plans.search.branch import fastest
from plans.search.problem import Limits
from plans.search.subspace import Pool
from plans.space import FULL, RUNNABLE
from tests.plans.samples import job, large_job, workload
from tests.plans.search.synthetic import problem

pytest.importorskip("scipy")


def test_the_solver_agrees_on_random_problems_in_one_pool():
    agreed = 0
    for seed in range(60):
        drawn = replace(problem(seed), limits=Limits(pools=1))
        if len(drawn.ranks) > 1:
            continue
        found = fastest(Book(drawn))
        seconds = found[0].seconds if found else 0.0
        answer = Program(drawn, (Pool(drawn.roles, drawn.ranks[0], 0),)).verification(seconds)
        assert answer.agrees if found else answer.solved is None, seed
        agreed += answer.agrees
    assert agreed >= 20


def test_the_solver_agrees_on_the_pools_of_an_optimum():
    several = 0
    for seed in range(100, 160):
        drawn = problem(seed)
        found = fastest(Book(drawn))
        if found:
            several += len(found[0].pools) > 1
            assert Program(drawn, found[0].pools).verification(found[0].seconds).agrees, seed
    assert several > 5


def test_the_solver_agrees_on_all_placements_of_small_spaces():
    """Also those that the search never opened: it proves them no better by their bounds."""
    solved = several = 0
    for seed in range(200, 240):
        drawn = problem(seed)
        found = fastest(Book(drawn))
        answer = verify_problem(drawn, found[0].pools, found[0].seconds) if found else None
        if answer and answer.placements == answer.of:
            assert answer.agrees, seed
            solved += 1
            several += answer.of > 1
    assert solved > 15
    assert several > 8


@pytest.mark.parametrize(
    ("chosen", "name"),
    [
        (large_job(), "7b"),
        (large_job(algorithm={"name": "ppo", "kl": {"weight": 0.1}}), "0.5b"),
        (job(cluster={"hardware": "cpu", "ranks": 4}), "toy"),
    ],
)
def test_the_solver_agrees_on_jobs_with_nothing_pruned(chosen, name):
    answer = verify(search_workload(workload(chosen, name), Asked(space=RUNNABLE)))
    assert answer.agrees
    assert answer.variables > 20


@pytest.mark.slow
def test_the_solver_agrees_on_the_full_space_of_one_pool():
    chosen = large_job(cluster={"hardware": "h100-sxm", "nodes": 2})
    answer = verify(search_workload(workload(chosen, "7b"), Asked(space=FULL)))
    assert answer.agrees
    assert answer.variables > 500


def test_a_wrong_optimum_is_not_agreed_with():
    found = search_workload(workload(large_job(), "7b"))
    slower = replace(found.optimum, step_seconds=found.optimum.step_seconds * 1.001)
    assert not verify(replace(found, optimum=slower)).agrees
