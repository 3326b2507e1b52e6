"""How a model is run: degrees, micro-batch, precision and what is traded for memory."""

from __future__ import annotations

from math import inf
from typing import Literal

from plans.values import frozen

Recompute = Literal["none", "selective", "full"]
Schedule = Literal["1f1b", "interleaved", "zero-bubble", "v-half", "v-min"]
Sharding = Literal["none", "optimizer", "full"]


@frozen
class Execution:
    """One training role on its ranks.

    `weight_bytes`, `gradient_bytes` and `state_bytes` are per parameter: as stored, as
    accumulated, and of the optimizer with any master copy. `sharding` says what is divided
    over the data-parallel ranks: nothing, the optimizer (ZeRO-1), or all (FSDP, ZeRO-3; layers
    are gathered in bf16, at most `gathered_parameters` at once: ZeRO-3 of DeepSpeed gathers
    module by module, stage3_max_live_parameters). `logit_bytes` are kept per token and vocabulary
    entry at the loss (0: fused and chunked). `fused_gate`: a gated MLP's product is one kernel, so
    that it keeps three widths and not four. `adapter_rank` trains low-rank adapters of every matrix
    instead.
    `first_layers` and `last_layers` make uneven stages; `stages_in_v` puts the last stage's
    modules on the first ranks, as V-shaped schedules do.
    """

    sequence: int
    micro_batch: int = 1
    micro_batches: int = 1 << 30
    tp: int = 1
    pp: int = 1
    dp: int = 1
    cp: int = 1
    ep: int = 1
    expert_tp: int = 1
    vpp: int = 1
    schedule: Schedule = "1f1b"
    first_layers: int = 0
    last_layers: int = 0
    sequence_parallel: bool = False
    recompute: Recompute = "none"
    activation_offload: bool = False
    optimizer_offload: bool = False
    sharding: Sharding = "optimizer"
    gathered_parameters: float = inf
    weight_bytes: float = 2
    gradient_bytes: float = 4
    state_bytes: float = 12
    logit_bytes: float = 6
    flash: bool = True
    dropout: bool = False
    fused_gate: bool = True
    adapter_rank: int = 0

    @property
    def tokens(self) -> float:
        """Tokens of a micro-batch on one context-parallel rank."""
        return self.micro_batch * self.sequence / self.cp

    @property
    def replicas(self) -> int:
        """Ranks that hold the same dense parameters."""
        return self.dp * self.cp

    @property
    def expert_replicas(self) -> float:
        """Ranks that hold the same experts; with FSDP all of them may share one expert."""
        return max(1.0, self.dp * self.cp * self.tp / (self.ep * self.expert_tp))
