"""From measured operations to a calibration file, in the form of plans/times/calibration."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from plans.hardware import HardwareSpec, read_hardware
from plans.source import UserError
from runtime.files import write_file

MICRO = 1e6
MILLI = 1e-3
# Products of at least this many rows are bound by arithmetic, and of at most this many by memory.
MANY_ROWS, FEW_ROWS = 1024, 32
SMALL_BYTES = 64 * 1024


def write_calibration(path: Path, rows: Sequence[dict[str, Any]], hardware_name: str) -> None:
    """Write what `rlplan bench micro` measured as rates of a stack; UserError when it cannot."""
    text = calibration_text(path.stem, rows, read_hardware(hardware_name))
    try:
        write_file(path, text.encode())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None


def calibration_text(stack: str, rows: Sequence[dict[str, Any]], hardware: HardwareSpec) -> str:
    """A calibration of level micro: shares of the datasheet's rates, and latencies.

    gemm_share is the median over large products of the model's shapes, memory_share that of a
    copy on the device; links are those between the ranks that took part.
    """
    precision = str(rows[0]["precision"])
    rates = {
        "gemm_share": _median(
            row["flops_per_second"] / hardware.flops_per_second(precision)
            for row in rows
            if row["what"] == "product" and row["name"] != "square" and row["m"] >= MANY_ROWS
        ),
        "memory_share": _median(
            row["bytes_per_second"] / hardware.chip.memory_bytes_per_second
            for row in rows
            if row["what"] == "copy on the device"
        ),
        "link_share": _median(_link_shares(rows, hardware)),
        "link_us": _median(
            row["ms"] * MILLI * MICRO
            for row in rows
            if "ranks_together" in row and row["bytes"] <= SMALL_BYTES
        ),
    }
    decode = {
        "memory_share": _median(
            row["bytes_per_second"] / hardware.chip.memory_bytes_per_second
            for row in rows
            if row["what"] == "product" and row["name"] == "gate_up" and row["m"] <= FEW_ROWS
        )
    }
    device = f"{rows[0]['device']}, {rows[0]['ranks']} ranks, torch {rows[0]['versions']['torch']}"
    command = rows[0]["command"].replace("\n", " ")
    lines = [
        "# Written by `rlplan bench micro`; rates of operations by themselves, not of a stack.",
        f"stack: {json.dumps(stack)}",
        f"title: {json.dumps(f'operations measured on {device}')}",
        f"provenance: {json.dumps(command)}",
        "level: micro",
        *_section("train", rates),
        *_section("generate", {**rates, **{k: v for k, v in decode.items() if v is not None}}),
    ]
    return "\n".join(lines) + "\n"


def _link_shares(rows: Sequence[dict[str, Any]], hardware: HardwareSpec) -> list[float]:
    largest = max((row["bytes"] for row in rows if "ranks_together" in row), default=0)
    return [
        row["bytes_per_second"] / hardware.chip.link_bytes_per_second(row["ranks_together"])
        for row in rows
        if "ranks_together" in row and row["bytes"] == largest
    ]


def _median(values: Iterable[float]) -> float | None:
    found = list(values)
    return statistics.median(found) if found else None


def _section(kind: str, rates: dict[str, float | None]) -> list[str]:
    known = [f"    {name}: {rate:.4g}" for name, rate in rates.items() if rate is not None]
    return [f"{kind}:", "  any:", *known]
