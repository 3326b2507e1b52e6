"""Measured operations as a calibration file that estimates read."""

import pytest

from launcher.calibrating import calibration_text, write_calibration
from plans.hardware import read_hardware
from plans.source import UserError
from plans.times.calibration import read_calibration_file

FACTS = {
    "precision": "bf16",
    "device": "NVIDIA H200",
    "ranks": 4,
    "versions": {"torch": "2.11.0"},
    "command": "rlplan bench micro --model 'a: b'",
}
TERA = 1e12


def product(name, rows, rate):
    speed = {"flops_per_second": rate * TERA, "bytes_per_second": 4 * TERA if rows == 1 else 1.0}
    return {"what": "product", "name": name, "m": rows, "ms": 1.0, **speed, **FACTS}


def collective(size, ms, rate):
    facts = {"what": "all_reduce", "ranks_together": 4, "bytes": size, "ms": ms}
    return {**facts, "bytes_per_second": rate * 1e9, **FACTS}


ROWS = [
    product("square", 8192, 800),
    product("qkv", 8192, 600),
    product("gate_up", 8192, 700),
    product("down", 8192, 710),
    product("gate_up", 1, 2),
    {"what": "copy on the device", "bytes": 2**32, "bytes_per_second": 4.32e12, "ms": 2, **FACTS},
    collective(8192, 0.025, 1),
    collective(2**30, 5.0, 360),
]


def test_a_micro_calibration_gives_shares_of_the_datasheet(tmp_path):
    write_calibration(tmp_path / "mine.yaml", ROWS, "h200-sxm")
    found = read_calibration_file(tmp_path / "mine.yaml")
    train, generate = found.train_rates("H200"), found.generate_rates("H200")
    assert found.level == "micro"
    assert train.gemm_share == pytest.approx(700 / 989, rel=1e-3)
    assert train.memory_share == pytest.approx(4.32 / 4.8, rel=1e-3)
    assert train.link_share == pytest.approx(360 / 450, rel=1e-3)
    assert train.link_us == pytest.approx(25, rel=1e-3)
    assert generate.memory_share == pytest.approx(4 / 4.8, rel=1e-3)


def test_what_was_not_measured_keeps_the_default():
    alone = [row for row in ROWS if "ranks_together" not in row]
    text = calibration_text("mine", alone, read_hardware("h200-sxm"))
    assert "link_share" not in text
    assert "link_us" not in text


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        write_calibration(tmp_path / "nowhere" / "mine.yaml", ROWS, "h200-sxm")
