"""Collectives against measured ones and against their limits."""

from __future__ import annotations

import pytest

from plans.source import PlanError
from plans.times.collectives import Group, collective_seconds, group
from plans.times.device import device, read_devices
from plans.times.rates import OpRates

DEVICES = read_devices()
GIB = 2**30


def test_a_collective_of_one_rank_takes_no_time() -> None:
    alone = Group(size=1, inside=1)
    assert collective_seconds("all_reduce", GIB, alone, DEVICES["H100-SXM"], OpRates()) == 0


@pytest.mark.parametrize(("size", "milliseconds"), [(2, 3.297), (4, 4.57)])
def test_an_all_reduce_of_a_gibibyte_on_h200_is_as_measured(size: int, milliseconds: float) -> None:
    seconds = collective_seconds(
        "all_reduce", GIB, group(size, 1, 8), DEVICES["H200"], OpRates(link_share=0.75)
    )
    assert seconds == pytest.approx(milliseconds / 1000, rel=0.12)


def test_two_devices_of_a_mesh_reach_one_link_of_seven() -> None:
    mesh = DEVICES["MI300X"]
    assert mesh.link_bytes_per_second(2) == pytest.approx(64e9)
    assert mesh.link_bytes_per_second(8) == pytest.approx(448e9)


def test_an_all_reduce_over_nodes_sees_every_nic() -> None:
    """4 x 8 B200, 4 GiB: 22.05 ms measured, within 6 % of a ring over all NICs."""
    seconds = collective_seconds(
        "all_reduce", 4 * GIB, group(32, 1, 8), DEVICES["B200"], OpRates(nic_share=0.94)
    )
    assert seconds == pytest.approx(22.05e-3, rel=0.06)


def test_strided_groups_share_a_node_with_fewer_of_their_own() -> None:
    assert group(16, 1, 8) == Group(size=16, inside=8)
    assert group(16, 4, 8) == Group(size=16, inside=2)
    assert group(16, 8, 8).domains == 16


def test_an_unknown_device_is_refused_with_the_known_ones() -> None:
    with pytest.raises(PlanError, match=r"'H100-SMX' is not known.*did you mean 'H100-SXM'"):
        device("H100-SMX", DEVICES)
