"""One job on several machines: the front, the knee, and the table."""

import re
from dataclasses import dataclass
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plans.load import estimate
from plans.reports.sweep import Point, front, knee, sweep_data, sweep_text
from plans.variant import changes_of
from tests.runs import ROOT

JOB = ROOT / "examples" / "math-grpo-7b.yaml"


@dataclass(frozen=True)
class Taken:
    """As much of an estimate as the front looks at."""

    expected: float


@dataclass(frozen=True)
class Made:
    run: Taken
    dollars: Taken


def point(seconds, dollars, nodes=1):
    made = Made(run=Taken(seconds), dollars=Taken(dollars))
    return Point(hardware="x", nodes=nodes, estimate=made)


positive = st.floats(min_value=1, max_value=1e6)


@given(st.lists(st.tuples(positive, positive), min_size=1, max_size=20))
def test_a_point_is_on_the_front_if_and_only_if_no_other_beats_it(pairs):
    points = [point(*pair) for pair in pairs]
    kept = front(points)
    for one in points:
        beaten = any(
            other.seconds <= one.seconds
            and other.cost <= one.cost
            and (other.seconds, other.cost) != (one.seconds, one.cost)
            for other in points
        )
        assert beaten == ((one.seconds, one.cost) not in {(k.seconds, k.cost) for k in kept})


@given(st.lists(st.tuples(positive, positive), min_size=1, max_size=20))
def test_the_knee_is_on_the_front(pairs):
    kept = front([point(*pair) for pair in pairs])
    turning = knee(kept)
    assert (turning is None) == (len(kept) < 3)
    assert turning is None or turning in kept


def test_the_knee_is_where_money_stops_buying_time():
    kept = front([point(100, 10), point(20, 12), point(18, 60), point(17, 100)])
    assert knee(kept).seconds == 20


@cache
def points():
    found = []
    for nodes in (1, 2, 4):
        found.append(Point(hardware="h100-sxm", nodes=nodes, estimate=planned(nodes)))
    return (*found, Point(hardware="a10g", nodes=1, reason="no layout fits"))


@cache
def planned(nodes):
    return estimate(JOB, changes_of(f"nodes={nodes}"))


@pytest.mark.parametrize("width", [80, 100])
def test_the_table_has_a_row_a_machine_and_fits_the_terminal(width):
    lines = sweep_text(points(), width).splitlines()
    named = [line for line in lines if re.match(r"\d × ", line)]
    assert [line[:12] for line in named] == [*(f"{n} × h100-sxm" for n in (1, 2, 4)), named[3][:12]]
    assert max(map(len, lines)) <= width
    assert any("no layout fits" in line for line in lines)


def test_the_json_says_why_there_is_no_plan():
    data = sweep_data(points())
    assert [each["world_size"] for each in data] == [8, 16, 32, None]
    assert data[3]["reason"] == "no layout fits"
    assert sum(each["knee"] for each in data) <= 1
