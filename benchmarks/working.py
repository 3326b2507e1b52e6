"""Published runs in the memory tree: whatever worked has to fit.

What a source does not print is taken as those who run it do when memory is short: everything
recomputed, one sequence at a time, an optimizer divided over the replicas.
"""

from __future__ import annotations

from math import inf

from benchmarks.models import shape_of
from benchmarks.rows import Row
from benchmarks.serve_rows import replica_of
from benchmarks.step_rows import setting_of
from benchmarks.train_rows import OLD_STACKS, settings_of
from plans.bytes.account import Verdict, fullest, verdict
from plans.bytes.execution import Execution, Recompute
from plans.bytes.training import training_accounts
from plans.times.device import Device
from plans.times.generation import fits
from plans.times.layer import TrainSetting
from plans.times.ops import Ops
from plans.times.rates import GenerateRates

ADAPTER_RANK = 16
# stage3_max_live_parameters of DeepSpeed's ZeRO-3
LIVE_PARAMETERS = 1e9


def training_verdict(row: Row, stack: str, device: Device) -> Verdict:
    """The leanest of the settings a training row may have had, against its device's memory."""
    shape = shape_of(row)
    options = [
        execution_of(row, setting, stack) for setting in settings_of(row, stack, shape, device)
    ]
    accounts = [fullest(training_accounts(shape, each)) for each in options]
    leanest = min(accounts, key=lambda account: account.total)
    return verdict([leanest], device.memory_bytes)


def serving_fits(row: Row, device: Device) -> bool:
    """Whether the weights of a serving row leave a tenth of its replica's memory to the cache."""
    rates = GenerateRates()
    return fits(shape_of(row), replica_of(row), Ops(device, rates), rates)


def step_fits(row: Row, stack: str, device: Device) -> bool:
    """Whether both engines of a whole step fit, each while the other one's memory is let go."""
    setting, shape = setting_of(row, stack, device), shape_of(row)
    account = fullest(training_accounts(shape, execution_of(row, setting.train, stack)))
    rates = GenerateRates()
    rollout = fits(shape, setting.replica, Ops(device, rates), rates)
    return verdict([account], device.memory_bytes).fits and rollout


def execution_of(row: Row, at: TrainSetting, stack: str) -> Execution:
    """A setting of the time model in the words of the memory tree."""
    live = LIVE_PARAMETERS if "zero3" in row["notes"] else inf
    return Execution(
        sequence=at.sequence,
        micro_batch=at.micro_batch,
        micro_batches=at.micro_batches,
        tp=at.tp,
        pp=at.pp,
        dp=at.dp,
        cp=at.cp,
        ep=at.ep,
        vpp=at.virtual,
        schedule="interleaved" if at.virtual > 1 else "1f1b",
        sequence_parallel=at.sequence_parallel and at.tp > 1,
        recompute=_recompute(row, at),
        sharding="full" if at.sharding == "gradients" else at.sharding,
        gathered_parameters=live,
        gradient_bytes=2.0 if stack in OLD_STACKS else 4.0,
        optimizer_offload=bool(row.noted(r"(offload.?fraction\W*1)")),
        state_bytes=0.0 if "without optimizer" in row["notes"] else 12.0,
        logit_bytes=0.0 if at.policy_loss else 6.0,
        flash=at.fused_attention,
        adapter_rank=ADAPTER_RANK if at.adapter else 0,
    )


def _recompute(row: Row, at: TrainSetting) -> Recompute:
    if at.recompute == "full" or not row["recompute"]:
        return "full"
    return "selective" if at.recompute in ("selective", "half") else "none"
