"""The memory account: bytes of one rank, by kind, while a phase lasts.

A rank is told by its pipeline stage: the first holds the embedding and the most
micro-batches in flight, the last the head and the logits; those in between hold less.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from plans.dataflow import Role, roles_of
from plans.layout import ParallelLayout
from plans.model import ModelSpec
from plans.placement import RolloutSettings, TrainSettings
from plans.reshard import BUCKET_BYTES, ROUNDS_IN_FLIGHT, island_ranks
from plans.workload import Candidate, Workload

LEARNING = {
    "update_actor": Role.ACTOR_TRAIN,
    "update_critic": Role.CRITIC,
    "supervised": Role.ACTOR_TRAIN,
}
SCORING = {
    "old_log_prob": Role.ACTOR_TRAIN,
    "ref": Role.REFERENCE,
    "values": Role.CRITIC,
}
GENERATING = ("gen", "gen_max", "evaluate")
# Roles whose head gives one number a token instead of one a word.
ONE_NUMBER = (Role.CRITIC, Role.REWARD)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryUse:
    """Bytes of one rank. Activations, logits and switch last a phase, the rest the whole run."""

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
        return (
            self.weights
            + self.gradients
            + self.optimizer
            + self.rollout_weights
            + self.kv_cache
            + self.activations
            + self.logits
            + self.switch
            + self.reserve
        )

    def items(self) -> list[tuple[str, int]]:
        """(kind, bytes) in the order of the account."""
        return [(field.name, getattr(self, field.name)) for field in fields(self)]

    def __add__(self, other: MemoryUse) -> MemoryUse:
        theirs = dict(other.items())
        return MemoryUse(**{kind: count + theirs[kind] for kind, count in self.items()})


def stages_to_check(layout: ParallelLayout) -> list[int]:
    """The pipeline stages one of which is the fullest."""
    return sorted({0, layout.pp - 1})


def memory_use(workload: Workload, candidate: Candidate, phase: str) -> MemoryUse:
    """The account of the fullest rank while `phase` lasts."""
    uses = [
        stage_memory(workload, candidate, phase, stage)
        for stage in stages_to_check(candidate.train)
    ]
    return max(uses, key=lambda use: use.total)


def stage_memory(workload: Workload, candidate: Candidate, phase: str, stage: int) -> MemoryUse:
    """The account of a rank of pipeline stage `stage` while `phase` lasts."""
    train, rollout = candidate.train, candidate.rollout
    lasting = train_resident(workload, train, candidate.training, stage) + rollout_resident(
        workload, train, rollout, candidate.rolling
    )
    if phase == "reshard":
        return lasting + switch_transient(workload, train, rollout)
    if phase in GENERATING:
        return lasting + generate_transient(workload, rollout, candidate.rolling)
    return lasting + train_transient(workload, train, candidate.training, phase, stage)


def train_resident(
    workload: Workload, layout: ParallelLayout, settings: TrainSettings, stage: int
) -> MemoryUse:
    """Weights, gradients and optimizer of the roles that train or score, and the reserve.

    Gradients are fp32 (Megatron-core's main gradients); what only scores has none.
    """
    held = {
        role: stage_parameters(workload.of(role).model, layout, stage, role)
        for role in roles_of(workload.job)
        if role != Role.ACTOR_ROLLOUT
    }
    trained = sum(count for role, count in held.items() if role in LEARNING.values())
    return MemoryUse(
        weights=workload.element_bytes * sum(held.values()),
        gradients=4 * trained,
        optimizer=optimizer_bytes(workload, trained, layout, settings),
        reserve=workload.hardware.reserve_bytes,
    )


def working_role(workload: Workload, phase: str) -> Role | None:
    """The role that learns or scores in a phase; None where no such model works."""
    if phase == "reward":
        return Role.REWARD if workload.reward_model else None
    return LEARNING.get(phase) or SCORING.get(phase)


def rollout_resident(
    workload: Workload, train: ParallelLayout, rollout: ParallelLayout, rolling: RolloutSettings
) -> MemoryUse:
    """The KV cache, and the weights that are not the trainer's own storage."""
    return MemoryUse(
        rollout_weights=rollout_weight_bytes(workload, train, rollout),
        kv_cache=rolling.kv_cache_bytes,
    )


def train_transient(
    workload: Workload, layout: ParallelLayout, settings: TrainSettings, phase: str, stage: int
) -> MemoryUse:
    """Activations and logits of a phase that learns or scores; nothing for the others.

    Logits are kept in the model's precision and once in fp32 for the softmax.
    """
    role = working_role(workload, phase)
    if role is None:
        return MemoryUse()
    workload = workload.of(role)
    tokens = settings.micro_batch * workload.sequence_tokens
    logits = 0
    if stage == layout.pp - 1 and role not in ONE_NUMBER:
        row = workload.model.padded_vocab_size // layout.tp
        logits = tokens * row * (4 + workload.element_bytes)
    kept = activation_bytes(workload, layout, settings, stage, learns=phase in LEARNING)
    return MemoryUse(activations=kept, logits=logits)


def generate_transient(
    workload: Workload, rollout: ParallelLayout, rolling: RolloutSettings
) -> MemoryUse:
    """Logits of one decoding step, in fp32 and gathered over the tensor-parallel ranks."""
    model = workload.model
    row = model.padded_vocab_size * 4 * (1 + 1 / rollout.tp)
    return MemoryUse(logits=int(rolling.concurrency * row))


def switch_transient(
    workload: Workload, train: ParallelLayout, rollout: ParallelLayout
) -> MemoryUse:
    """Staging of the switch: the buckets in flight.

    Nothing when the layouts agree, nor when all ranks read each other's memory.
    """
    island = island_ranks(workload.hardware, workload.ranks_per_node)
    if shares_storage(train, rollout) or workload.world_size <= island:
        return MemoryUse()
    most = workload.element_bytes * workload.model.parameter_count // rollout.tp
    return MemoryUse(switch=2 * ROUNDS_IN_FLIGHT * min(BUCKET_BYTES, most))


def stage_parameters(model: ModelSpec, layout: ParallelLayout, stage: int, role: Role) -> int:
    """Parameters that a rank of this stage holds.

    Its layers, the embedding on the first stage, and on the last the final norm and the head:
    one row for a critic or a reward model, the embedding once more when it is tied and
    stands on another stage.
    """
    count = model.layer_parameters(layout.tp) * (model.layer_count // layout.pp)
    table = model.padded_vocab_size * model.hidden_size // layout.tp
    first, last = stage == 0, stage == layout.pp - 1
    if first:
        count += table
    if not last:
        return count
    count += model.hidden_size
    if role in ONE_NUMBER:
        return count + model.hidden_size
    return count if first and model.tied_embeddings else count + table


def optimizer_bytes(
    workload: Workload, parameters: int, layout: ParallelLayout, settings: TrainSettings
) -> int:
    """Adam's two fp32 moments, and the fp32 master copy when weights are bf16.

    8 or 12 bytes a parameter, divided over the data-parallel ranks by the distributed
    optimizer (ZeRO stage 1, Rajbhandari et al. 2020, 3.1; Megatron-core,
    theoretical_memory_usage.py). Offloaded states are on the host.
    """
    if settings.optimizer_offload:
        return 0
    each = 8 if workload.precision == "fp32" else 12
    return each * parameters // (layout.dp if settings.distributed_optimizer else 1)


def shares_storage(train: ParallelLayout, rollout: ParallelLayout) -> bool:
    """Whether the rollout's parameters can be the trainer's own storage."""
    return train.pp == 1 and train.tp == rollout.tp


def rollout_weight_bytes(workload: Workload, train: ParallelLayout, rollout: ParallelLayout) -> int:
    """Weights the rollout holds beside the trainer's.

    With shared storage only qkv is a copy, in another order, and that only when several KV
    groups live on a rank; otherwise it is a whole shard.
    """
    model = workload.model
    if not shares_storage(train, rollout):
        whole = ParallelLayout(tp=rollout.tp)
        return workload.element_bytes * stage_parameters(model, whole, 0, Role.ACTOR_ROLLOUT)
    if model.kv_head_count <= rollout.tp:
        return 0
    return workload.element_bytes * model.qkv_parameters // rollout.tp * model.layer_count


def kv_bytes_per_token(workload: Workload, rollout_tp: int) -> int:
    """Keys and values of one token on one rank; heads are copied when ranks outnumber them."""
    model = workload.model
    heads = max(1, model.kv_head_count // rollout_tp)
    return 2 * heads * model.head_size * model.layer_count * workload.element_bytes


def kv_bytes_per_sequence(workload: Workload, rollout_tp: int) -> int:
    """The cache of one sequence of the longest prompt and response, in whole blocks."""
    block = workload.hardware.kv_block_tokens
    blocks = -(-workload.sequence_tokens // block)
    return blocks * block * kv_bytes_per_token(workload, rollout_tp)


def activation_bytes(
    workload: Workload, layout: ParallelLayout, settings: TrainSettings, stage: int, *, learns: bool
) -> int:
    """What the layers of a stage keep for the backward pass, over the micro-batches in flight.

    1F1B keeps min(micro-batches, pp - stage) of them (Narayanan et al. 2021, 2.2.1). Full
    recomputation keeps the input of each layer and one layer alive; a forward pass alone
    keeps one layer.
    """
    tokens = settings.micro_batch * workload.sequence_tokens
    layer = _layer_bytes_per_token(workload, layout, settings) * tokens
    if not learns:
        return layer
    layers = workload.model.layer_count // layout.pp
    flying = min(micro_batches(workload, layout, settings), layout.pp - stage)
    if settings.recompute == "none":
        return layer * layers * flying
    kept = workload.element_bytes * workload.model.hidden_size * tokens
    if settings.sequence_parallel:
        kept //= layout.tp
    return kept * layers * flying + layer


def micro_batches(workload: Workload, layout: ParallelLayout, settings: TrainSettings) -> int:
    """Micro-batches a data-parallel rank runs for one optimizer step."""
    shard = workload.mini_batch // layout.dp
    return max(1, -(-shard // settings.micro_batch))


def _layer_bytes_per_token(
    workload: Workload, layout: ParallelLayout, settings: TrainSettings
) -> int:
    """Kept activations of one layer and token.

    18 h + 6 f bytes at two bytes an element for a gated MLP, of which 10 h is not cut by
    tensor parallelism unless the sequence is (Korthikanti et al. 2022, table 2, with f for
    4 h and two MLP inputs). Unfused attention, as on a CPU, adds its scores: 5 a s bytes.
    Measured on H200s: a 7B keeps 5.4 MB a token at tp 1, this says 5.0 and 0.9 of logits.
    """
    model = workload.model
    uncut = 10 * model.hidden_size
    cut = 8 * model.hidden_size + 6 * model.intermediate_size
    if workload.hardware.platform == "cpu":
        cut += 5 * model.head_count * workload.sequence_tokens
    if settings.sequence_parallel:
        uncut //= layout.tp
    return (uncut + cut // layout.tp) * workload.element_bytes // 2
