"""Ranks along parallel axes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plans.layout import ParallelLayout

DEGREES = st.integers(1, 4)
LAYOUTS = st.builds(ParallelLayout, tp=DEGREES, cp=DEGREES, dp=DEGREES, pp=DEGREES)


def test_tensor_parallel_neighbours_are_adjacent():
    groups = list(ParallelLayout(tp=2, dp=2, pp=2).groups("tp"))
    assert groups == [(0, 1), (2, 3), (4, 5), (6, 7)]


def test_pipeline_stages_are_as_far_apart_as_can_be():
    assert list(ParallelLayout(tp=2, dp=2, pp=2).groups("pp")) == [(0, 4), (1, 5), (2, 6), (3, 7)]


def test_a_split_axis_makes_strided_tensor_groups():
    strided = ParallelLayout(tp=2, dp=2, order="dp2-tp-dp")
    assert list(strided.groups("tp")) == [(0, 2), (1, 3)]
    assert list(strided.groups("dp")) == [(0, 1), (2, 3)]


@given(LAYOUTS)
def test_every_rank_has_coordinates_of_its_own(layout):
    ranks = range(layout.world_size)
    places = [tuple(layout.coordinates(rank).items()) for rank in ranks]
    assert len(set(places)) == layout.world_size
    assert [layout.rank_at(**dict(place)) for place in places] == list(ranks)


@given(LAYOUTS, st.sampled_from(ParallelLayout.AXES))
def test_every_rank_is_in_exactly_one_group_of_each_axis(layout, axis):
    groups = list(layout.groups(axis))
    assert sorted(rank for group in groups for rank in group) == list(range(layout.world_size))
    for group in groups:
        assert [layout.coordinates(rank)[axis] for rank in group] == list(range(len(group)))


@pytest.mark.parametrize(
    ("layout", "text"),
    [
        (ParallelLayout(), "tp1 pp1 dp1"),
        (ParallelLayout(tp=4, pp=2, dp=8, cp=2), "tp4 pp2 dp8 cp2"),
    ],
)
def test_layouts_are_written_as_people_write_them(layout, text):
    assert str(layout) == text
