"""Workload: what a step has to do and on what, the input of every memory and time formula."""

from __future__ import annotations

from dataclasses import dataclass, replace

from plans.dataflow import Role, roles_of
from plans.hardware import HardwareSpec
from plans.layout import ParallelLayout
from plans.model import ModelSpec
from plans.placement import Placement, ResourcePool, RolloutSettings, TrainSettings
from plans.source import PlanError
from plans.spec import JobSpec

ELEMENT_BYTES = {"fp32": 4, "bf16": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A job, its model, and the machine it is planned for."""

    job: JobSpec
    model: ModelSpec
    hardware: HardwareSpec
    reward_model: ModelSpec | None = None

    def of(self, role: Role) -> Workload:
        """The same work with the model that this role holds."""
        if role != Role.REWARD or self.reward_model is None:
            return self
        return replace(self, model=self.reward_model)

    @property
    def world_size(self) -> int:
        cluster = self.job.cluster
        return cluster.ranks or cluster.nodes * self.hardware.devices_per_node

    @property
    def ranks_per_node(self) -> int:
        return self.world_size // self.job.cluster.nodes

    @property
    def slowdown(self) -> float:
        """How many ranks share one device; 1 unless ranks may outnumber devices (CPU)."""
        return max(1.0, self.ranks_per_node / self.hardware.devices_per_node)

    @property
    def precision(self) -> str:
        return self.job.precision or self.hardware.precision

    @property
    def element_bytes(self) -> int:
        return ELEMENT_BYTES[self.precision]

    @property
    def sequence_tokens(self) -> int:
        return self.job.tokens.prompt + self.job.tokens.response

    @property
    def mini_batch(self) -> int:
        """Sequences of one optimizer step, over all data-parallel ranks."""
        return self.job.batch.sequences // self.job.batch.mini_batches

    def check_cluster(self) -> None:
        """PlanError when the ranks do not fit the nodes."""
        cluster, ranks = self.job.cluster, self.world_size
        at = ("cluster", "ranks")
        if ranks % cluster.nodes:
            raise PlanError(f"{ranks} ranks do not spread evenly over {cluster.nodes} nodes", at=at)
        if self.ranks_per_node > self.hardware.devices_per_node and not self.hardware.oversubscribe:
            places = cluster.nodes * self.hardware.devices_per_node
            text = f"{ranks} ranks, but {cluster.nodes} × {self.hardware.name} has {places} GPUs"
            raise PlanError(text, at=at)

    def check_lengths(self) -> None:
        """PlanError when a sequence may grow past the positions the model was made for."""
        if self.sequence_tokens > self.model.max_positions:
            raise PlanError(
                f"prompt {self.job.tokens.prompt} + response {self.job.tokens.response} = "
                f"{self.sequence_tokens}, but the model has {self.model.max_positions} positions",
                at=("tokens",),
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One way to place the roles, before it is known to fit or to be the best."""

    pools: tuple[ResourcePool, ...]
    placements: tuple[Placement, ...]

    def placement(self, role: Role) -> Placement:
        """The placement of a role; KeyError when the candidate has no such role."""
        for placement in self.placements:
            if placement.role == role:
                return placement
        raise KeyError(role)

    @property
    def train(self) -> ParallelLayout:
        return self.placement(Role.ACTOR_TRAIN).layout

    @property
    def rollout(self) -> ParallelLayout:
        return self.placement(Role.ACTOR_ROLLOUT).layout

    @property
    def training(self) -> TrainSettings:
        settings = self.placement(Role.ACTOR_TRAIN).train
        assert settings is not None, "the trained actor has training settings"
        return settings

    @property
    def rolling(self) -> RolloutSettings:
        settings = self.placement(Role.ACTOR_ROLLOUT).rollout
        assert settings is not None, "the rollout has rollout settings"
        return settings

    def __str__(self) -> str:
        return f"{self.train}, rollout tp{self.rollout.tp}"


def colocated(
    workload: Workload,
    train: ParallelLayout,
    training: TrainSettings,
    rollout: ParallelLayout,
    rolling: RolloutSettings,
) -> Candidate:
    """All roles on one pool of all ranks; what is trained or scored shares one layout."""
    pool = ResourcePool(name="all", first_rank=0, rank_count=workload.world_size)
    placements = [
        Placement(role=role, pool=pool.name, layout=rollout, rollout=rolling)
        if role == Role.ACTOR_ROLLOUT
        else Placement(role=role, pool=pool.name, layout=train, train=training)
        for role in roles_of(workload.job)
    ]
    return Candidate(pools=(pool,), placements=tuple(placements))
