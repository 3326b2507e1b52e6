"""What one RL step does: the phases of an algorithm, in order, and the role that does each.

Phase names are the field's (verl's `timing_s/*` keys), so numbers compare across frameworks.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from plans.spec import JobSpec


class Role(StrEnum):
    """A model in the dataflow, or the engine that holds it."""

    ACTOR_TRAIN = "actor_train"
    ACTOR_ROLLOUT = "actor_rollout"
    CRITIC = "critic"
    REFERENCE = "reference"
    REWARD = "reward"


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One piece of a step: its name, the role that works in it, and its passes over the batch."""

    name: str
    role: Role
    passes: int = 1


def roles_of(job: JobSpec) -> tuple[Role, ...]:
    """The roles a job needs; unused ones do not exist in its plan."""
    roles = [Role.ACTOR_TRAIN, Role.ACTOR_ROLLOUT]
    if job.needs_critic:
        roles.append(Role.CRITIC)
    if job.needs_reference:
        roles.append(Role.REFERENCE)
    if job.reward.model:
        roles.append(Role.REWARD)
    return tuple(roles)


def phases_of(job: JobSpec) -> tuple[Phase, ...]:
    """The phases of one RL step, in the order every rank walks them.

    `old_log_prob` is a phase of its own only when the batch is cut into several optimizer
    steps: with one step the policy that samples is the policy that learns, and the ratio
    of the two is taken inside `update_actor` (Schulman et al. 2017, eq. 6 at theta_old).
    """
    train, rollout = Role.ACTOR_TRAIN, Role.ACTOR_ROLLOUT
    phases = [
        Phase(name="reshard", role=rollout),
        Phase(name="gen", role=rollout),
        Phase(name="reward", role=Role.REWARD if job.reward.model else rollout),
    ]
    penalized = job.needs_reference and job.algorithm.kl.place == "reward"
    if job.batch.mini_batches > 1 or penalized:
        phases.append(Phase(name="old_log_prob", role=train))
    if job.needs_reference:
        phases.append(Phase(name="ref", role=Role.REFERENCE))
    if job.needs_critic:
        phases.append(Phase(name="values", role=Role.CRITIC))
    phases.append(Phase(name="adv", role=train))
    if job.needs_critic:
        phases.append(Phase(name="update_critic", role=Role.CRITIC))
    phases.append(Phase(name="update_actor", role=train))
    return tuple(phases)
