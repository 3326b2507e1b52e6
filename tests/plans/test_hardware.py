"""The hardware files."""

import re
from dataclasses import asdict, replace
from statistics import NormalDist

import pytest
from pydantic import TypeAdapter

from plans.hardware import FOLDER, HardwareSpec, known_hardware, read_hardware
from plans.machine import machine_of
from plans.source import PlanError, SpecError
from plans.spread import COVERED, QUANTILE


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
    said = {"title", "platform", "oversubscribe", "precision", "devices_per_node"}
    for line in (FOLDER / f"{name}.yaml").read_text().splitlines():
        key = line.partition(":")[0]
        if line.startswith("#") or key in said:
            continue
        assert re.search(r"# \S+", line), f"{name}.yaml: {key} has no source"


@pytest.mark.parametrize("name", known_hardware())
def test_the_files_hold_values_of_the_right_types(name):
    data = asdict(read_hardware(name))
    assert TypeAdapter(HardwareSpec).validate_python(data) == read_hardware(name)


def test_the_quantile_of_the_interval_is_that_of_its_share():
    assert pytest.approx(NormalDist().inv_cdf((1 + COVERED) / 2)) == QUANTILE


@pytest.mark.parametrize("name", known_hardware())
def test_a_machine_comes_with_rates_and_an_interval(name):
    hardware = read_hardware(name)
    machine = machine_of(hardware, hardware.precision)
    assert 0 < machine.train_rates.gemm_share < 1
    assert 0 < machine.generate_rates.memory_share < 1
    assert 0 < machine.sigma < 0.7
    assert machine.level in ("published", "micro")
    assert hardware.reserve_bytes < hardware.memory_bytes
    assert hardware.name == name


def test_no_number_of_a_device_stands_twice():
    """Peaks and rates are the device's row; the file of the hardware names it."""
    for name in known_hardware():
        text = (FOLDER / f"{name}.yaml").read_text()
        assert not re.search(r"tflops|memory_gb_per_second|link_gb|nic_gb", text)


def test_an_h100_is_what_its_datasheet_says():
    h100 = read_hardware("h100-sxm")
    assert h100.flops_per_second("bf16") == 989e12
    assert h100.chip.memory_bytes_per_second == 3.35e12
    assert h100.devices_per_node == 8


def test_a_precision_without_figures_is_refused():
    chip = replace(read_hardware("h100-sxm").chip, fp32=0.0)
    with pytest.raises(PlanError, match="h100-sxm has no figures for fp32"):
        machine_of(replace(read_hardware("h100-sxm"), chip=chip), "fp32")


def test_unknown_hardware_is_refused_with_the_known_names():
    with pytest.raises(
        SpecError, match=r"'h1000' is not known; known: a100-sxm-40, a100-sxm-80, a10g"
    ):
        read_hardware("h1000")


def test_a_gcd_is_billed_as_half_a_gpu():
    assert read_hardware("mi250x-gcd").billing.per_device_hour == 0.5
