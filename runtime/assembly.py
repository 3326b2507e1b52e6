"""The engines of a rank, built from the plan: trained roles, rollout, and the switch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from plans.crossing import Crossing
from plans.dataflow import Role
from plans.hardware import read_hardware
from plans.layout import ParallelLayout
from plans.plan import Plan
from plans.reshard import ReshardSummary, digest, island_ranks
from plans.schedule import ReshardSchedule
from plans.switch import schedule_of
from plans.transfer import Row
from plans.values import frozen
from runtime.engines import RolloutEngine, ScoreEngine, TrainEngine
from runtime.engines.hf import read_reward_weights
from runtime.engines.megatron import MegatronEngine, MegatronScorer, megatron_groups
from runtime.engines.megatron_lora import AdapterEngine, StartPolicy
from runtime.engines.vllm import VLLMEngine
from runtime.mistakes import DataMistake
from runtime.policy import initial_weights, standing_policy, start_adapter
from runtime.reshard import Executor


@frozen
class Seat:
    """Where this rank sits, and what its engines share with the ranks of the same host."""

    rank: int
    local_rank: int
    device: torch.device
    job: str
    shared_memory: bool


@frozen
class Engines:
    """What this rank holds: the engines of its pool's roles. Trained roles also score.

    `rank` is its number in the pool.

    Without samples there is neither a rollout nor a switch to it. All ranks take part in one from
    pool to pool, those of the pool in one that stays there.
    """

    rank: int
    trained: Mapping[Role, TrainEngine]
    scored: Mapping[Role, ScoreEngine]
    rollout: RolloutEngine | None
    executor: Executor | None

    def trainer(self, role: Role) -> TrainEngine:
        return self.trained[role]

    def holds(self, role: Role) -> bool:
        """Whether a role that learns or scores is of this rank's pool."""
        return role in self.trained or role in self.scored

    def scorer(self, role: Role) -> ScoreEngine:
        return self.trained[role] if role in self.trained else self.scored[role]

    def switch(self, *, verify: bool) -> dict[str, float]:
        """Bring the training weights to the rollout engine; proves them equal when asked."""
        if self.executor is None:
            return {}
        moved = self.executor.run()
        if verify:
            self.executor.verify()
        if self.rollout is None:
            return {}
        self.rollout.weights_changed()
        return {"reshard/received_bytes": float(moved.received_bytes)}

    def close(self) -> None:
        if self.rollout is not None:
            self.rollout.close()


def assemble(plan: Plan, base: Path, seat: Seat, world: dist.ProcessGroup | None = None) -> Engines:
    """Build every engine of this rank's pool; all ranks call this together.

    `world` holds all ranks; None is the default group, where there is but one pool.

    Training engines come first: the rollout's parameters alias theirs, and its memory is
    what the plan left.
    """
    weights = initial_weights(plan, base / plan.job.model.path)
    pool = plan.pool_of(seat.rank)
    place = seat.rank - pool.first_rank
    trained, scored = _megatron_engines(plan, pool.name, base, weights)
    if not plan.has(Role.ACTOR_ROLLOUT):
        return Engines(rank=place, trained=trained, scored=scored, rollout=None, executor=None)
    actor = trained[Role.ACTOR_TRAIN].parameters() if Role.ACTOR_TRAIN in trained else {}
    rollout, executor = _answering(plan, base, seat, world, actor)
    return Engines(rank=place, trained=trained, scored=scored, rollout=rollout, executor=executor)


def assemble_frozen(
    plan: Plan, base: Path, seat: Seat, world: dist.ProcessGroup | None, checkpoint: Path | None
) -> Engines:
    """Build what answers without learning: the policy as it is, in a checkpoint or at the start.

    Nothing is kept for training, and the rollout's parameters alias the policy's as in a run.
    """
    place = plan.place(Role.ACTOR_TRAIN, seat.rank)
    placement = plan.placement(Role.ACTOR_TRAIN)
    assert placement.train is not None, "the actor's engine trains in a run"
    scored: dict[Role, MegatronScorer] = {}
    if place is not None:
        scored[Role.ACTOR_TRAIN] = standing_policy(
            plan,
            base / plan.job.model.path,
            megatron_groups(placement.layout),
            placement.train,
            checkpoint,
            start=start_adapter(plan, base),
        )
    parameters = scored[Role.ACTOR_TRAIN].parameters() if scored else {}
    rollout, executor = _answering(plan, base, seat, world, parameters)
    return Engines(
        rank=seat.rank - plan.pool_of(seat.rank).first_rank,
        trained={},
        scored=scored,
        rollout=rollout,
        executor=executor,
    )


def _answering(
    plan: Plan,
    base: Path,
    seat: Seat,
    world: dist.ProcessGroup | None,
    actor: Mapping[str, Tensor],
) -> tuple[VLLMEngine | None, Executor | None]:
    """What generates on this rank, if it does, and the switch to it from the actor's parameters."""
    rank: int | None = seat.rank
    if plan.pool(Role.ACTOR_TRAIN) == plan.pool(Role.ACTOR_ROLLOUT):
        # The schedule counts in that pool, whose group is torch's default one.
        rank, world = plan.place(Role.ACTOR_ROLLOUT, seat.rank), None
    if rank is None:
        return None, None
    rows = _switch_rows(plan, rank)
    rollout = None
    if plan.place(Role.ACTOR_ROLLOUT, seat.rank) is not None:
        aliases = {name: actor[source] for row in rows for name, source in row.aliases}
        rollout = _rollout(plan, base, seat, aliases)
    held = rollout.parameters() if rollout else {}
    ends: dict[str, Any] = {
        "source": actor,
        "destination": held,
        "device": seat.device,
        "group": world,
    }
    for row in rows[:-1]:
        _switch_once(Executor(row, **ends))
    return rollout, Executor(rows[-1], **ends)


def _rollout(plan: Plan, base: Path, seat: Seat, aliases: Mapping[str, Tensor]) -> VLLMEngine:
    placement, rank = plan.placement(Role.ACTOR_ROLLOUT), plan.place(Role.ACTOR_ROLLOUT, seat.rank)
    assert placement.rollout is not None
    assert rank is not None
    return VLLMEngine(
        folder=base / plan.job.model.path,
        model=plan.model,
        layout=placement.layout,
        settings=placement.rollout,
        precision=plan.precision,
        aliases=aliases,
        job=seat.job,
        rank=rank,
        local_rank=seat.local_rank,
        shared_memory=seat.shared_memory,
        lora=plan.job.lora,
    )


def _megatron_engines(
    plan: Plan, pool: str, base: Path, weights: Mapping[str, Tensor]
) -> tuple[dict[Role, TrainEngine], dict[Role, ScoreEngine]]:
    trained: dict[Role, TrainEngine] = {}
    scored: dict[Role, ScoreEngine] = {}
    groups: dict[ParallelLayout, object] = {}
    for placement in plan.placements:
        if placement.train is None or placement.pool != pool:
            continue
        layout, role = placement.layout, placement.role
        if layout not in groups:
            groups[layout] = megatron_groups(layout)
        values = role in (Role.CRITIC, Role.REWARD)
        common: dict[str, Any] = {
            "groups": groups[layout],
            "settings": placement.train,
            "precision": plan.precision,
            "kind": "values" if values else "policy",
            "temperature": 1.0 if values else plan.job.temperature,
        }
        if role is Role.REWARD:
            scored[role] = _judge(plan, base, common)
        elif role is Role.REFERENCE:
            scored[role] = MegatronScorer(model=plan.model, weights=weights, **common)
        else:
            optimizer = plan.job.critic_optimizer if values else plan.job.optimizer
            common |= {"model": plan.model, "weights": weights, "optimizer": optimizer}
            if plan.job.lora and role is Role.ACTOR_TRAIN:
                adapter = start_adapter(plan, base)
                actor = AdapterEngine(lora=plan.job.lora, adapter=adapter, **common)
                trained[role] = actor
                if plan.job.needs_reference:
                    scored[Role.REFERENCE] = StartPolicy(actor)
            else:
                trained[role] = MegatronEngine(**common)
    return trained, scored


def _judge(plan: Plan, base: Path, common: Mapping[str, Any]) -> MegatronScorer:
    """The reward model; DataMistake when it reads other tokens than the policy writes."""
    model, folder = plan.reward_model, plan.job.reward.model
    assert model is not None, "a plan with the reward role names its model"
    assert folder is not None, "a plan with the reward role names its model"
    own, theirs = (base / one / "tokenizer.json" for one in (plan.job.model.path, folder))
    if not theirs.is_file() or own.read_bytes() != theirs.read_bytes():
        raise DataMistake(
            f"{theirs}: not the tokenizer of {own.parent}; "
            "a reward model must read the tokens that the policy writes"
        )
    weights = read_reward_weights(base / folder, model)
    return MegatronScorer(model=model, weights=weights, **common)


def _switch_rows(plan: Plan, rank: int) -> tuple[Row, ...]:
    """This rank's part of the switch of each step, last; before it what is moved only once.

    Proven to be what the plan was hashed with.
    """
    island = island_ranks(read_hardware(plan.hardware), plan.ranks_per_node)
    each = _switch_row(schedule_of(plan, island), plan.reshard, rank)
    if plan.base_reshard is None:
        return (each,)
    return _switch_row(schedule_of(plan, island, base=True), plan.base_reshard, rank), each


def _switch_once(executor: Executor) -> None:
    """Bring over what no step changes; its buckets are given back."""
    executor.run()
    executor.verify()


def _switch_row(schedule: ReshardSchedule | Crossing, promised: ReshardSummary, rank: int) -> Row:
    if digest(schedule) != promised.schedule_digest:
        raise DataMistake(
            "the weight switch of this rlplan is not the one in plan.json; "
            "plan again with this version"
        )
    return schedule.row(rank)
