"""Micro-batches in flight: how often a stage's activations exist at once."""

from __future__ import annotations

from plans.bytes.execution import Execution


def in_flight(execution: Execution, stage: int) -> float:
    """Activations of the stage's own layers, in micro-batches, at the worst moment.

    1F1B keeps pp - stage (Narayanan et al. 2021, 2.2.1); interleaving adds (pp - 1) / vpp at
    the first stage (Korthikanti et al. 2022, 4.2.3). V-Half and V-Min hold (pp + 2) / 2 and
    (pp + 4) / 3 on every stage (Qi et al. 2024, 3.3); zero bubbles as much as 1F1B.
    """
    pp, most = execution.pp, float(execution.micro_batches)
    if pp == 1:
        return 1.0
    flying = {
        "1f1b": float(pp - stage),
        "zero-bubble": float(pp - stage),
        "interleaved": (pp * (execution.vpp - 1) + 2 * (pp - stage) - 1) / execution.vpp,
        "v-half": (pp + 2) / 2,
        "v-min": (pp + 4) / 3,
    }[execution.schedule]
    return min(flying, most)
