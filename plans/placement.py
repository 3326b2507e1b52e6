"""Which ranks a role owns, in which layout, and the settings its engine runs with."""

from __future__ import annotations

from plans.dataflow import Role
from plans.layout import ParallelLayout
from plans.resources import Recompute
from plans.values import frozen


@frozen
class NodeGroup:
    """Nodes of one kind and the run of consecutive ranks on them."""

    name: str
    hardware: str
    first_rank: int
    rank_count: int
    ranks_per_node: int

    @property
    def ranks(self) -> range:
        return range(self.first_rank, self.first_rank + self.rank_count)

    @property
    def nodes(self) -> int:
        return self.rank_count // self.ranks_per_node


@frozen
class ResourcePool:
    """A run of consecutive ranks that colocated roles share."""

    name: str
    first_rank: int
    rank_count: int

    @property
    def ranks(self) -> range:
        return range(self.first_rank, self.first_rank + self.rank_count)


@frozen
class TrainSettings:
    """How a Megatron engine runs: sequences a micro-batch, and what it trades for memory.

    `micro_tokens`: 0 where a micro-batch is `micro_batch` sequences padded to one length, else
    the most tokens of one of sequences packed back to back, for which `micro_batch` of the
    longest have room.
    `first_layers` and `last_layers` are those of the first and last pipeline stage where stages
    are uneven; 0 where all are alike.
    """

    micro_batch: int
    micro_tokens: int = 0
    recompute: Recompute = "none"
    sequence_parallel: bool = False
    distributed_optimizer: bool = True
    optimizer_offload: bool = False
    first_layers: int = 0
    last_layers: int = 0


@frozen
class RolloutSettings:
    """How a vLLM engine runs: sequences at a time, and its KV cache in bytes a rank.

    With `sleep` it gives the cache back while the other roles of its ranks work.
    """

    concurrency: int
    kv_cache_bytes: int
    max_tokens: int
    sleep: bool = False


@frozen
class Placement:
    """One role: its pool, its layout over the ranks of the pool, and its engine's settings."""

    role: Role
    pool: str
    layout: ParallelLayout
    train: TrainSettings | None = None
    rollout: RolloutSettings | None = None
