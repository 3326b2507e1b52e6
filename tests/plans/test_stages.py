"""Which layers a pipeline stage holds."""

import pytest

from plans.layout import ParallelLayout
from plans.stages import stage_layers, uneven_stages


@pytest.mark.parametrize(
    ("layers", "pp", "vpp"),
    [(8, 1, 1), (8, 2, 1), (8, 2, 2), (8, 4, 2), (12, 3, 4), (5, 2, 1), (30, 4, 1), (62, 4, 1)],
)
def test_every_layer_is_on_one_stage(layers, pp, vpp):
    layout = ParallelLayout(pp=pp, vpp=vpp)
    held = [layer for stage in range(pp) for layer in stage_layers(layers, layout, stage)]
    assert sorted(held) == list(range(layers))


def test_virtual_stages_walk_the_model_several_times_over_all_stages():
    layout = ParallelLayout(pp=2, vpp=2)
    assert stage_layers(8, layout, 0) == (0, 1, 4, 5)
    assert stage_layers(8, layout, 1) == (2, 3, 6, 7)


def test_stages_that_do_not_divide_are_shorter_at_the_ends():
    counts = [len(stage_layers(30, ParallelLayout(pp=4), stage)) for stage in range(4)]
    assert counts == [7, 8, 8, 7]
    assert uneven_stages(30, 4) == (7, 7)


def test_too_few_layers_for_the_ends_are_no_stages():
    assert uneven_stages(5, 4) is None
