"""Measured engines as a calibration file that estimates read."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.calibrating import calibration_text, write_calibration
from launcher.fitting import _predicted, _shape
from plans.hardware import read_hardware
from plans.machine import MEASURED, machine_of
from plans.source import UserError
from plans.times.calibration import measured_over, read_calibration, read_own_calibration

H200 = read_hardware("h200-sxm")
CONFIG = json.loads((Path(__file__).parents[2] / "examples/qwen2.5-7b/config.json").read_text())
FACTS = {
    "model": "qwen2.5-7b",
    "precision": "bf16",
    "device": "NVIDIA H200",
    "ranks": 1,
    "versions": {"torch": "2.11.0", "vllm": "0.24.0", "megatron-core": "0.16.1"},
    "command": "rlplan bench micro --model 'a: b'",
    "tp": 1,
    "dp": 1,
    "layers": 16,
}


def generated(count, prompt, response):
    sizes = {"sequences": count, "prompt_tokens": prompt, "response_tokens": response}
    return {"what": "generate", **sizes, **FACTS}


def learned(what, size, pieces, length):
    sizes = {"micro_batch": size, "micro_batches": pieces, "sequence_tokens": length}
    return {"what": what, **sizes, **FACTS}


ASKED = [
    *(generated(*one) for one in ((4, 512, 1), (32, 512, 1), (8, 64, 128), (256, 64, 128))),
    *(learned("update", *one) for one in ((1, 4, 512), (2, 6, 1024), (4, 2, 2048))),
    *(learned("score", *one) for one in ((1, 4, 512), (4, 2, 2048))),
]


def taken(rates):
    """The rows, with the milliseconds that a machine of such rates would take."""
    shipped = read_calibration("vllm")
    parts = {name: {"H200": values} for name, values in rates.items()}
    empty = replace(shipped, stack=MEASURED, train={}, generate={}, step={})
    own = replace(empty, **parts)
    machine = machine_of(replace(H200, own=own), "bf16")
    shape = _shape(CONFIG, 16)
    return [{**row, "ms": 1e3 * _predicted(row, shape, machine)} for row in ASKED]


SLOW_HOST = {
    "generate": {"layer_us": 60.0, "step_us": 1500.0, "sequence_us": 12.0},
    "train": {"forward_floor_us": 4000.0, "backward_floor_us": 4000.0},
}


@pytest.mark.parametrize("rates", [{}, SLOW_HOST], ids=["as shipped", "a slow host"])
def test_what_a_machine_took_is_what_its_calibration_predicts(tmp_path, rates):
    rows = taken(rates)
    write_calibration(tmp_path / "mine.yaml", rows, "h200-sxm", CONFIG)
    own = read_own_calibration(tmp_path / "mine.yaml")
    machine = machine_of(replace(H200, own=own, level="micro"), "bf16")
    shape = _shape(CONFIG, 16)
    for row in rows:
        assert 1e3 * _predicted(row, shape, machine) == pytest.approx(row["ms"], rel=0.08), row


def test_a_machine_calibration_holds_for_every_stack_of_its_device_and_for_no_other(tmp_path):
    write_calibration(tmp_path / "mine.yaml", taken(SLOW_HOST), "h200-sxm", CONFIG)
    own = read_own_calibration(tmp_path / "mine.yaml")
    machine = machine_of(replace(H200, own=own, level="micro"), "bf16")
    assert machine.level == "micro"
    assert machine.generate_rates.layer_us > 30
    assert machine.train_rates.forward_floor_us > 2500
    assert machine.step_rates.generate_factor == 1.0
    shipped = machine_of(H200, "bf16")
    assert machine.train_rates.gemm_share == pytest.approx(shipped.train_rates.gemm_share, rel=0.2)
    other = read_hardware("a100-sxm-80")
    mine, theirs = (machine_of(replace(other, own=one), "bf16") for one in (own, None))
    assert mine.generate_rates == theirs.generate_rates
    assert mine.train_rates == theirs.train_rates


def test_what_a_machine_did_not_measure_is_the_stack_s():
    found = measured_over(replace(read_calibration("vllm"), train={}), read_calibration("verl"))
    assert found.train == read_calibration("verl").train


def test_the_file_names_model_device_versions_and_command():
    text = calibration_text(taken({}), H200, CONFIG)
    for word in ("qwen2.5-7b on 1 x NVIDIA H200", "vllm 0.24.0", "'a: b'", "level: micro"):
        assert word in text


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        write_calibration(tmp_path / "nowhere" / "mine.yaml", taken({}), "h200-sxm", CONFIG)
