"""The memory account: bytes of one rank, by kind, while a phase lasts."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import prod

from plans.dataflow import Role
from plans.layout import ParallelLayout
from plans.model import ModelSpec, Tensor
from plans.placement import TrainSettings
from plans.workload import Candidate, Workload

SWITCH_BUCKET_BYTES = 64 * 2**20
TRAINS = {
    "update_actor": Role.ACTOR_TRAIN,
    "update_critic": Role.CRITIC,
    "supervised": Role.ACTOR_TRAIN,
}
SCORES = {"old_log_prob": Role.ACTOR_TRAIN, "ref": Role.REFERENCE, "values": Role.CRITIC}
GENERATES = ("gen", "evaluate")


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryUse:
    """Bytes of one rank in one phase. Everything but activations, logits and switch stays all run."""

    weights: int = 0
    gradients: int = 0
    optimizer: int = 0
    rollout_weights: int = 0
    kv_cache: int = 0
    activations: int = 0
    logits: int = 0
    switch: int = 0
    reserve: int = 0

    @property
    def total(self) -> int:
        return sum(count for _, count in self.items())

    def items(self) -> list[tuple[str, int]]:
        """(kind, bytes) in the order of the account."""
        return [(field.name, getattr(self, field.name)) for field in fields(self)]


def memory_use(workload: Workload, candidate: Candidate, phase: str) -> MemoryUse:
    """The account of the fullest rank while `phase` lasts."""
    stages = {0, candidate.train.pp - 1}
    uses = [stage_memory(workload, candidate, phase, stage) for stage in sorted(stages)]
    return max(uses, key=lambda use: use.total)


def stage_memory(workload: Workload, candidate: Candidate, phase: str, stage: int) -> MemoryUse:
    """The account of a rank of pipeline stage `stage` while `phase` lasts."""
    layout, settings = candidate.train, candidate.training
    held = _held_parameters(workload, candidate, stage)
    activations, logits = _transient(workload, candidate, phase, stage)
    return MemoryUse(
        weights=workload.element_bytes * sum(held.values()),
        gradients=4 * _trained(held),
        optimizer=optimizer_bytes(workload, _trained(held), layout, settings),
        rollout_weights=rollout_weight_bytes(workload, candidate, stage),
        kv_cache=candidate.rolling.kv_cache_bytes,
        activations=activations,
        logits=logits,
        switch=switch_bytes(workload, candidate, phase),
        reserve=workload.hardware.reserve_bytes,
    )


def stage_parameters(model: ModelSpec, layout: ParallelLayout, stage: int, role: Role) -> int:
    """Parameters a rank of this stage holds: its layers, the embedding on the first stage, and on
    the last the final norm and the head (one row for a critic, the embedding again when tied)."""
    share = sum(_share(tensor, layout.tp) for tensor in model.layer_tensors)
    count = share * (model.layer_count // layout.pp)
    table = model.padded_vocab_size * model.hidden_size // layout.tp
    first, last = stage == 0, stage == layout.pp - 1
    if first:
        count += table
    if last:
        count += model.hidden_size
        if role == Role.CRITIC:
            count += model.hidden_size
        elif not (first and model.tied_embeddings):
            count += table
    return count


def optimizer_bytes(
    workload: Workload, parameters: int, layout: ParallelLayout, settings: TrainSettings
) -> int:
    """Adam's two fp32 moments, and the fp32 master copy when weights are bf16.

    8 or 12 bytes a parameter, divided over the data-parallel ranks by the distributed
    optimizer (ZeRO stage 1, Rajbhandari et al. 2020, 3.1; Megatron-core
    theoretical_memory_usage.py).
    """
    if settings.optimizer_offload:
        return 0
    each = 8 if workload.precision == "fp32" else 12
    return each * parameters // (layout.dp if settings.distributed_optimizer else 1)


def rollout_weight_bytes(workload: Workload, candidate: Candidate, stage: int) -> int:
    """Weights the rollout holds beside the trainer's.

    With equal tensor degrees and no pipeline its parameters are the trainer's storage, all
    but qkv, which is a copy in another order when several KV groups live on a rank.
    """
    model, train, rollout = workload.model, candidate.train, candidate.rollout
    if train.pp == 1 and train.tp == rollout.tp:
        groups = model.kv_head_count // rollout.tp
        qkv = sum(
            _share(tensor, rollout.tp)
            for tensor in model.layer_tensors
            if any(part in tensor.name for part in ("q_proj", "k_proj", "v_proj"))
        )
        return workload.element_bytes * (qkv * model.layer_count if groups > 1 else 0)
    whole = ParallelLayout(tp=rollout.tp)
    return workload.element_bytes * stage_parameters(model, whole, 0, Role.ACTOR_ROLLOUT)


def kv_bytes_per_token(workload: Workload, rollout_tp: int) -> int:
    """Keys and values of one token on one rank; heads are replicated when ranks outnumber them."""
    model = workload.model
    heads = max(1, model.kv_head_count // rollout_tp)
    return 2 * heads * model.head_size * model.layer_count * workload.element_bytes


def kv_bytes_per_sequence(workload: Workload, rollout_tp: int) -> int:
    """The cache of one sequence of the longest prompt and response, in whole blocks."""
    block = workload.hardware.kv_block_tokens
    blocks = -(-workload.sequence_tokens // block)
    return blocks * block * kv_bytes_per_token(workload, rollout_tp)


def switch_bytes(workload: Workload, candidate: Candidate, phase: str) -> int:
    """Staging of the switch: a bucket each way, and nothing when both layouts agree."""
    train, rollout = candidate.train, candidate.rollout
    if phase != "reshard" or (train.pp == 1 and train.tp == rollout.tp):
        return 0
    whole = workload.element_bytes * workload.model.parameter_count // rollout.tp
    return 2 * min(SWITCH_BUCKET_BYTES, whole)


def _held_parameters(workload: Workload, candidate: Candidate, stage: int) -> dict[Role, int]:
    roles = [
        placement.role
        for placement in candidate.placements
        if placement.role in (Role.ACTOR_TRAIN, Role.CRITIC, Role.REFERENCE)
    ]
    layout = candidate.train
    return {role: stage_parameters(workload.model, layout, stage, role) for role in roles}


def _trained(held: dict[Role, int]) -> int:
    return sum(count for role, count in held.items() if role != Role.REFERENCE)


def _transient(workload: Workload, candidate: Candidate, phase: str, stage: int) -> tuple[int, int]:
    """Activations and logits that exist only while `phase` lasts."""
    model, layout = workload.model, candidate.train
    if phase in GENERATES:
        rows = min(candidate.rolling.concurrency, 1024)
        return 0, rows * model.padded_vocab_size // candidate.rollout.tp * 4 * 2
    role = TRAINS.get(phase) or SCORES.get(phase)
    if role is None:
        return 0, 0
    tokens = candidate.training.micro_batch * workload.sequence_tokens
    logits = 0
    if stage == layout.pp - 1 and role != Role.CRITIC:
        logits = tokens * model.padded_vocab_size * (4 + workload.element_bytes) // layout.tp
    live = activation_bytes(workload, candidate, stage, learns=phase in TRAINS)
    return live, logits


def activation_bytes(workload: Workload, candidate: Candidate, stage: int, *, learns: bool) -> int:
    """What the layers of a stage keep for the backward pass, over the micro-batches in flight.

    Korthikanti et al. 2022 (2205.05198), table 2 with a gated MLP: (18 h + 6 f) bytes a token
    and layer at two bytes an element, of which 10 h is not cut by tensor parallelism unless
    the sequence is; 2 h with full recomputation, and one layer alive. Unfused attention
    (CPU) adds its scores, 5 a s bytes. 1F1B keeps pp - stage micro-batches in flight.
    A forward pass alone keeps one layer.
    """
    layout, settings = candidate.train, candidate.training
    tokens = settings.micro_batch * workload.sequence_tokens
    layer = _layer_bytes(workload, layout, settings) * tokens
    if not learns:
        return layer
    layers = workload.model.layer_count // layout.pp
    flying = min(micro_batches(workload, candidate), layout.pp - stage)
    if settings.recompute == "none":
        return layer * layers * flying
    kept = workload.element_bytes * workload.model.hidden_size * tokens
    if settings.sequence_parallel:
        kept //= layout.tp
    return kept * layers * flying + layer


def micro_batches(workload: Workload, candidate: Candidate) -> int:
    """Micro-batches a data-parallel rank runs between two optimizer steps."""
    batch = workload.job.batch
    shard = batch.sequences // batch.mini_batches // candidate.train.dp
    return max(1, -(-shard // candidate.training.micro_batch))


def _layer_bytes(workload: Workload, layout: ParallelLayout, settings: TrainSettings) -> int:
    """Kept activations of one layer and token."""
    model, tp = workload.model, layout.tp
    uncut = 10 * model.hidden_size
    cut = 8 * model.hidden_size + 6 * model.intermediate_size
    if workload.hardware.platform == "cpu":
        cut += 5 * model.head_count * workload.sequence_tokens
    count = uncut // (tp if settings.sequence_parallel else 1) + cut // tp
    return count * workload.element_bytes // 2


def _share(tensor: Tensor, tp: int) -> int:
    return prod(tensor.shape) // (tp if tensor.shard_dim is not None else 1)
