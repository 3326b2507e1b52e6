"""From measured engines to a calibration file, in the form of plans/times/calibration."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from launcher.fitting import fitted
from plans.hardware import HardwareSpec, read_hardware
from plans.source import UserError
from plans.times.calibration import Calibration
from runtime.files import write_file

ENGINES = ("generate", "update", "score")
DIGITS = 4


def write_calibration(
    path: Path, rows: Sequence[Mapping[str, Any]], hardware_name: str, config: Mapping[str, Any]
) -> None:
    """Write what `rlplan bench micro` measured as constants of its machine.

    `config` is that of the model, and the engines' rows are among the measured. UserError when
    the file cannot be written.
    """
    text = calibration_text(rows, read_hardware(hardware_name), config)
    try:
        write_file(path, text.encode())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None


def calibration_text(
    rows: Sequence[Mapping[str, Any]], hardware: HardwareSpec, config: Mapping[str, Any]
) -> str:
    """A calibration of level micro, which holds for both engines on one kind of device."""
    engines = [row for row in rows if row["what"] in ENGINES]
    first = engines[0]
    found = fitted(engines, hardware, config, str(first["precision"]))
    versions = first["versions"]
    used = " ".join(f"{name} {versions[name]}" for name in ("torch", "vllm", "megatron-core"))
    title = f"{first['model']} on {first['ranks']} x {first['device']}, {used}"
    return _text(found, title, first["command"].replace("\n", " "))


def _text(found: Calibration, title: str, command: str) -> str:
    lines = [
        "# Written by `rlplan bench micro`: fitted to both engines on layers of one model.",
        f"stack: {found.stack}",
        f"title: {json.dumps(title)}",
        f"provenance: {json.dumps(command)}",
        f"level: {found.level}",
    ]
    for part in ("train", "generate", "step"):
        lines.append(f"{part}:")
        for device, constants in getattr(found, part).items():
            lines.append(f"  {json.dumps(device)}:")
            lines += [f"    {name}: {_number(value)}" for name, value in constants.items()]
    lines.append("spread:")
    for name, spread in found.spread.items():
        values = ", ".join(f"{key}: {_number(value)}" for key, value in asdict(spread).items())
        lines.append(f"  {json.dumps(name)}: {{{values}}}")
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    return f"{value:.{DIGITS}g}"
