"""The hardware files."""

import re

import pytest

from plans.hardware import FOLDER, known_hardware, read_hardware
from plans.source import SpecError


def test_the_kinds_a_user_may_name():
    assert known_hardware() == [
        "a100-sxm-40",
        "a100-sxm-80",
        "a10g",
        "b200",
        "cpu",
        "h100-sxm",
        "h200-sxm",
        "l40s",
        "mi250x-gcd",
        "mi300x",
        "mi325x",
        "mi355x",
    ]


@pytest.mark.parametrize("name", known_hardware())
def test_every_number_has_its_source_beside_it(name):
    said = {"title", "platform", "oversubscribe", "precision", "calibration", "devices_per_node"}
    for line in (FOLDER / f"{name}.yaml").read_text().splitlines():
        key = line.partition(":")[0]
        if line.startswith("#") or key in said:
            continue
        assert re.search(r"# \S+", line), f"{name}.yaml: {key} has no source"


@pytest.mark.parametrize("name", known_hardware())
def test_achieved_rates_stay_below_the_peak_and_bands_hold_the_plan(name):
    hardware = read_hardware(name)
    assert 0 < hardware.train_share < 1
    assert 0 < hardware.prefill_share < 1
    assert 0 < hardware.memory_share < 1
    assert hardware.band[0] < 1 < hardware.band[1]
    assert hardware.reserve_bytes < hardware.memory_bytes
    assert hardware.name == name


def test_an_h100_is_what_its_datasheet_says():
    h100 = read_hardware("h100-sxm")
    assert h100.flops_per_second("bf16") == 989e12
    assert h100.memory_bytes_per_second == pytest.approx(0.8 * 3.35e12)
    assert h100.devices_per_node == 8


def test_unknown_hardware_is_refused_with_the_known_names():
    with pytest.raises(
        SpecError, match=r"'h1000' is not known; known: a100-sxm-40, a100-sxm-80, a10g"
    ):
        read_hardware("h1000")


@pytest.mark.parametrize("name", known_hardware())
def test_collectives_stay_below_the_links_they_run_on(name):
    hardware = read_hardware(name)
    topology = hardware.topology
    nics = topology.nics_per_node * topology.nic_gb_per_second / hardware.devices_per_node
    assert hardware.inner.gb_per_second < topology.link_gb_per_second
    assert hardware.outer.gb_per_second < max(nics, topology.nic_gb_per_second)


def test_a_gcd_is_billed_as_half_a_gpu():
    assert read_hardware("mi250x-gcd").billing.per_device_hour == 0.5
