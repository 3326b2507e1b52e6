"""Constants under which the planner's models take what both engines took in a measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import exp, log
from statistics import fmean
from typing import Any

from benchmarks.fit import FIRST_STEP, Knob, descend, filled, knob_of, loss_of
from plans.bytes.shape import shape_of
from plans.hardware import HardwareSpec
from plans.machine import MEASURED, Machine, machine_of
from plans.model import ModelSpec, from_config
from plans.times.calibration import Calibration, Constants, Spread, read_calibration
from plans.times.generation import ReplicaSetting, generation_time
from plans.times.layer import TrainSetting
from plans.times.shape import Shape
from plans.times.training import forward_time, train_step_time

MILLI = 1e-3
# A repeated measurement on one machine; the rows of other people's machines err by more.
ERROR_UNIT = 0.03
# How far, as a logarithm, a constant may leave its start at the price of one error unit.
KNOBS = {
    "generate": {
        "generate.gemm_share": 0.2,
        "generate.memory_share": 0.2,
        "generate.kv_share": 0.3,
        "generate.layer_us": 1.0,
        "generate.step_us": 1.0,
        "generate.sequence_us": 1.0,
        "generate.prefill_share": 0.2,
        "generate.prefill_layer_us": 1.0,
        "generate.prefill_step_us": 1.0,
        "generate.link_us": 1.0,
        "generate.ring_us": 1.0,
    },
    "train": {
        "train.gemm_share": 0.2,
        "train.attention_share": 0.3,
        "train.attention_backward": 0.3,
        "train.hidden_passes": 0.3,
        "train.inner_passes": 0.3,
        "train.score_passes": 0.5,
        "train.forward_floor_us": 1.0,
        "train.backward_floor_us": 1.0,
        "train.tensor_floor_us": 1.0,
        "train.link_us": 1.0,
        "train.ring_us": 1.0,
        "train.step_ms": 1.0,
    },
}
FACTORS = {"generate_factor": 1.0, "forward_factor": 1.0, "update_factor": 1.0}
# What a loop adds to its engines is not in the rows; steps on H200 were this near.
LEAST_ERROR = 0.03

Row = Mapping[str, Any]


def fitted(
    rows: Sequence[Row], hardware: HardwareSpec, config: Mapping[str, Any], precision: str
) -> Calibration:
    """A calibration of one device from rows 'generate', 'update' and 'score' in milliseconds.

    `config` is the model's; the rows tell how many of its layers they ran. The engines' rows
    come from the loop's own process, so the factors of a step are one.
    """
    chip = hardware.chip.name
    found = Calibration(
        stack=MEASURED,
        title="both engines as measured on one machine",
        provenance="",
        level="micro",
        step={chip: dict(FACTORS)},
    )
    errors: list[float] = []
    for part, knobs in KNOBS.items():
        mine = [row for row in rows if (row["what"] == "generate") == (part == "generate")]
        if mine:
            fit = _Fit(mine, hardware, config, precision, part)
            found = fit.run(found, knobs)
            errors += fit.errors(found)
    size = max(LEAST_ERROR, fmean(abs(each) for each in errors)) if errors else LEAST_ERROR
    spread = Spread(near=size, far=2 * size, error=exp(size) - 1, rows=len(errors))
    return replace(found, spread={f"rlhf_step {chip}": spread})


class _Fit:
    """The rows of one engine and what the models say of them."""

    def __init__(
        self,
        rows: Sequence[Row],
        hardware: HardwareSpec,
        config: Mapping[str, Any],
        precision: str,
        part: str,
    ) -> None:
        self._rows, self._hardware, self._precision = rows, hardware, precision
        self._part = part
        self._shapes = {
            layers: _shape(config, layers) for layers in {int(row["layers"]) for row in rows}
        }

    def run(self, start: Calibration, names: Mapping[str, float]) -> Calibration:
        """`start` with the named constants of this device fitted to the rows."""
        chip = self._hardware.chip.name
        shipped = self._shipped()
        knobs = [knob_of(name, chip, shipped, tolerance) for name, tolerance in names.items()]

        def losses(_: str) -> dict[str, float]:
            found = self.errors(_only(start, self._part, chip, knobs))
            return {str(place): loss_of(each / ERROR_UNIT) for place, each in enumerate(found)}

        descend(knobs, losses, FIRST_STEP)
        return _only(start, self._part, chip, knobs)

    def errors(self, calibration: Calibration) -> list[float]:
        """Logarithm of predicted over measured seconds of each row."""
        machine = machine_of(replace(self._hardware, own=calibration), self._precision)
        return [
            log(_predicted(row, self._shapes[int(row["layers"])], machine) / (MILLI * row["ms"]))
            for row in self._rows
        ]

    def _shipped(self) -> Calibration:
        return read_calibration(getattr(self._hardware.stacks, self._part))


def _only(start: Calibration, part: str, chip: str, knobs: list[Knob]) -> Calibration:
    """The present values of the knobs beside the other parts of `start`."""
    values: Constants = getattr(filled(start, knobs), part)[chip]
    table: dict[str, Any] = {part: {chip: values}}
    return replace(start, **table)


def _shape(config: Mapping[str, Any], layers: int) -> Shape:
    model: ModelSpec = from_config({**config, "num_hidden_layers": layers}, "config.json")
    return shape_of(model)


def _predicted(row: Row, shape: Shape, machine: Machine) -> float:
    """Seconds of a row by the models of the planner."""
    if row["what"] == "generate":
        count, prompt = float(row["sequences"]), float(row["prompt_tokens"])
        return generation_time(
            shape,
            ReplicaSetting(tp=row["tp"]),
            machine.generate,
            machine.generate_rates,
            prompt,
            ((float(row["response_tokens"]), count),),
            count * prompt,
            count,
        ).total
    at = _setting(row, machine)
    if row["what"] == "score":
        return forward_time(shape, at, machine.train, machine.train_rates)
    return train_step_time(shape, at, machine.train, machine.train_rates).total


def _setting(row: Row, machine: Machine) -> TrainSetting:
    """As plans/costs/work.py has it for a run."""
    fused = machine.hardware.platform != "cpu"
    return TrainSetting(
        sequence=row["sequence_tokens"],
        micro_batch=row["micro_batch"],
        micro_batches=row["micro_batches"],
        dp=row["dp"],
        tp=row["tp"],
        reduce_bytes=machine.reduce_bytes,
        sequence_parallel=row["tp"] > 1 and fused,
        fused_attention=fused,
        policy_loss=True,
        even_stages=True,
    )
