"""Footprints: the bytes of a trained or scored role at both ends of its pipeline.

The same lines as `resident.py`, summed: what lasts depends on the replicas, what a micro-batch
adds does not and is linear in its sequences, so that few trees are walked for many choices.
"""

from __future__ import annotations

from dataclasses import replace

from plans.bytes.account import Account, Kind
from plans.bytes.schedule import in_flight
from plans.bytes.training import scoring_accounts, training_accounts
from plans.choice import Ends
from plans.costs.resident import PASSING, TREE_WIDTH, lasting_lines
from plans.costs.work import execution, role_shape
from plans.dataflow import Role
from plans.layout import ParallelLayout
from plans.placement import TrainSettings
from plans.values import frozen
from plans.workload import Workload

LIVE = "layers.live"
MANY = 1 << 30


@frozen
class Slice:
    """Bytes of one sequence of a micro-batch on a stage.

    `kept` for the backward pass of each micro-batch in flight, of which there are `flying` when
    there are enough; `loss` and `live` beside it at the loss and in the backward pass; `scored`
    in a forward pass alone.
    """

    kept: float
    loss: float
    live: float
    scored: float
    flying: float

    def learning(self, micro_batch: int, micro_batches: int) -> float:
        """Bytes of a micro-batch at the fuller moment."""
        flying = min(self.flying, float(micro_batches))
        return micro_batch * (self.kept * flying + max(self.loss, self.live))

    def scoring(self, micro_batch: int) -> float:
        return micro_batch * self.scored


@frozen
class Lasting:
    """What lasts for the run: bytes of the device at both ends, and of the host."""

    device: Ends
    host: float


def lasting(
    workload: Workload, role: Role, layout: ParallelLayout, settings: TrainSettings
) -> Lasting:
    """Weights, gradients and optimizer at both ends of the pipeline."""
    device, host = [], 0.0
    for stages in _ends(layout, settings):
        worst = 0.0
        for stage in stages:
            lines = lasting_lines(workload, role, layout, settings, stage)
            worst = max(worst, sum(line.bytes for line in lines if line.kind != Kind.HOST))
            host = max(host, sum(line.bytes for line in lines if line.kind == Kind.HOST))
        device.append(worst)
    return Lasting(device=(device[0], device[-1]), host=host)


def slices(
    workload: Workload, role: Role, layout: ParallelLayout, settings: TrainSettings
) -> tuple[tuple[Slice, ...], tuple[Slice, ...]]:
    """What one sequence takes on the stages of the first and of the last end."""
    shape = role_shape(workload, role)
    run = execution(workload, replace(layout, dp=1), settings, 1)
    one = replace(run, micro_batch=1, micro_batches=1)
    many = replace(run, micro_batches=MANY)
    width = workload.element_bytes / TREE_WIDTH

    def slice_of(stage: int) -> Slice:
        loss, backward = training_accounts(shape, one, stages=(stage,))
        (score,) = scoring_accounts(shape, one, stages=(stage,))
        live = sum(line.bytes for line in backward.lines if line.module == LIVE) * width
        return Slice(
            kept=backward.of(Kind.ACTIVATIONS) * width - live,
            loss=loss.of(Kind.LOGITS),
            live=live,
            scored=_passing_bytes(score, width),
            flying=in_flight(many, stage),
        )

    first, last = _ends(layout, settings)
    return tuple(map(slice_of, first)), tuple(map(slice_of, last))


def _passing_bytes(account: Account, width: float) -> float:
    return sum(
        line.bytes * (width if line.kind == Kind.ACTIVATIONS else 1.0)
        for line in account.lines
        if line.kind in PASSING
    )


def _ends(
    layout: ParallelLayout, settings: TrainSettings
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Stages whose bytes bound those of the first and the last rank's end of a pool.

    Of equal stages the first is the fullest but for the last. Of uneven ones the second may be.
    """
    if layout.pp == 1:
        return (0,), (0,)
    uneven = settings.first_layers and layout.pp > 2
    return ((0, 1) if uneven else (0,)), (layout.pp - 1,)
