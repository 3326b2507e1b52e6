"""Plan a job: enumerate the legal layouts, keep what fits in memory, rank by seconds a step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

from plans.choice import Choice, Switch
from plans.costs.tables import Costs
from plans.dataflow import Role, roles_of
from plans.freeze import plan_of
from plans.hardware import HardwareSpec
from plans.layout import ParallelLayout
from plans.legality import Rejection, rollout_degrees, train_layouts
from plans.memory import verdict_of
from plans.model import ModelSpec
from plans.plan import Plan
from plans.reshard import rollout_layout
from plans.runnable import check_plannable, check_runnable
from plans.source import PlanError
from plans.spec import JobSpec
from plans.units import GIB
from plans.workload import Candidate, Workload, colocated

MOST_NODES_TRIED = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """The best settings of one pair of layouts that fit, with the numbers they are judged by."""

    candidate: Candidate
    step_seconds: float
    peak_bytes: int

    @property
    def order(self) -> tuple[float | int, ...]:
        """Fastest first; ties go to fewer stages, smaller degrees, less memory."""
        candidate = self.candidate
        return (
            round(self.step_seconds, 9),
            candidate.train.pp,
            candidate.train.tp,
            candidate.rollout.tp,
            self.peak_bytes,
            candidate.training.micro_batch,
        )

    def data(self) -> dict[str, str | float | int]:
        """As JSON holds it."""
        return {
            "layout": str(self.candidate),
            "step_seconds": self.step_seconds,
            "peak_bytes": self.peak_bytes,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What a search found: pairs of layouts in order, the best first, and why the rest fell out.

    `judged` counts every combination of layouts and settings that was compared.
    """

    workload: Workload
    ranked: tuple[Ranked, ...]
    rejections: tuple[Rejection, ...]
    judged: int

    @property
    def best(self) -> Ranked:
        return self.ranked[0]

    @property
    def next_best(self) -> Ranked | None:
        return self.ranked[1] if len(self.ranked) > 1 else None

    def plan(self) -> Plan:
        """The best candidate as a frozen plan."""
        return plan_of(self.workload, self.best.candidate)


@dataclass(frozen=True, slots=True, kw_only=True)
class _TooLarge:
    """The smallest need of a pair of layouts that does not fit."""

    candidate: Candidate
    peak_bytes: int


def make_plan(
    job: JobSpec,
    model: ModelSpec,
    hardware: HardwareSpec,
    reward_model: ModelSpec | None = None,
) -> Plan:
    """The fastest plan under the cost model; PlanError with the reason when there is none."""
    check_runnable(job, model)
    return search(job, model, hardware, reward_model).plan()


def search(
    job: JobSpec,
    model: ModelSpec,
    hardware: HardwareSpec,
    reward_model: ModelSpec | None = None,
) -> Search:
    """Every pair of layouts of a job, judged; PlanError when none is legal or none fits."""
    check_plannable(job)
    workload = Workload(job=job, model=model, hardware=hardware, reward_model=reward_model)
    workload.check_cluster()
    workload.check_lengths()
    layouts, no_train = train_layouts(workload)
    degrees, no_rollout = rollout_degrees(workload)
    if not layouts or not degrees:
        raise _nothing_legal(layouts, no_train, no_rollout)
    judged, fits, too_large = _judge(workload, layouts, degrees)
    if not fits:
        raise _nothing_fits(workload, min(too_large, key=lambda one: one.peak_bytes))
    return Search(
        workload=workload,
        ranked=tuple(sorted(fits, key=lambda one: one.order)),
        rejections=(*no_train, *no_rollout, *(_rejection(workload, one) for one in too_large)),
        judged=judged,
    )


def _judge(
    workload: Workload, layouts: list[ParallelLayout], degrees: list[int]
) -> tuple[int, list[Ranked], list[_TooLarge]]:
    """For each pair of layouts its best settings, or how much it would need."""
    costs = Costs(workload)
    judged, fits, too_large = 0, [], []
    rollouts = {
        tp: costs.choices_in(
            Role.ACTOR_ROLLOUT, ParallelLayout(tp=tp, dp=workload.world_size // tp)
        )
        for tp in degrees
    }
    for train in layouts:
        training = _together(workload, costs, train)
        for rolling in rollouts.values():
            if not training:
                continue
            switch = costs.switch(training[0][0], rolling[0], together=True)
            pairs = [_pair(workload, switch, *both) for both in product(training, rolling)]
            judged += len(pairs)
            fitting = [one for one in pairs if one.peak_bytes <= workload.hardware.memory_bytes]
            if fitting:
                fits.append(min(fitting, key=lambda one: (one.step_seconds, one.peak_bytes)))
            elif pairs:
                least = min(pairs, key=lambda one: one.peak_bytes)
                too_large.append(_TooLarge(candidate=least.candidate, peak_bytes=least.peak_bytes))
    return judged, fits, too_large


def _together(workload: Workload, costs: Costs, layout: ParallelLayout) -> list[tuple[Choice, ...]]:
    """The trained and scored roles in one layout with the same settings."""
    roles = [role for role in roles_of(workload.job) if role != Role.ACTOR_ROLLOUT]
    tables = {role: costs.choices_in(role, layout) for role in roles}
    found = []
    for actor in tables[Role.ACTOR_TRAIN]:
        same = [next((one for one in tables[role] if _alike(one, actor)), None) for role in roles]
        if all(same):
            found.append(tuple(one for one in same if one))
    return found


def _alike(one: Choice, actor: Choice) -> bool:
    assert one.train is not None, "a trained or scored role"
    assert actor.train is not None, "the actor is trained"
    learns = one.role in (Role.ACTOR_TRAIN, Role.CRITIC)
    same = one.train.micro_batch == actor.train.micro_batch
    return same and (not learns or one.train.recompute == actor.train.recompute)


def _pair(
    workload: Workload, switch: Switch, training: tuple[Choice, ...], rollout: Choice
) -> Ranked:
    actor = training[0]
    every = (*training, rollout)
    peak = max(
        sum(one.resident[end] for one in every)
        - switch.shared[end]
        + max(switch.staging[end], *(one.transient[end] for one in every))
        for end in (0, 1)
    )
    assert actor.train is not None, "the actor is trained"
    assert rollout.rollout is not None, "a rollout has its settings"
    order = rollout_layout(actor.layout, rollout.layout.tp)
    return Ranked(
        candidate=colocated(workload, actor.layout, actor.train, order, rollout.rollout),
        step_seconds=switch.seconds + sum(sum(one.seconds) for one in every),
        peak_bytes=round(peak) + workload.hardware.reserve_bytes,
    )


def _rejection(workload: Workload, one: _TooLarge) -> Rejection:
    has = workload.hardware.memory_gib
    need = f"{one.peak_bytes / GIB:.3g} GiB per {workload.hardware.device}"
    reason = f"needs {need}, there are {has:.3g}"
    return Rejection(what=str(one.candidate), layout=one.candidate.train, reason=reason)


def _nothing_legal(
    layouts: list[ParallelLayout], no_train: list[Rejection], no_rollout: list[Rejection]
) -> PlanError:
    """What stands in the way, each reason once, under the role that the user can change."""
    role, rejections = ("actor_rollout", no_rollout) if layouts else ("actor_train", no_train)
    reasons = "; ".join(dict.fromkeys(one.reason for one in rejections))
    return PlanError(f"no legal layout: {reasons}", at=("roles", role))


def _nothing_fits(workload: Workload, best: _TooLarge) -> PlanError:
    """How much is missing, and the number of nodes that would do, or else what takes the most."""
    hardware = workload.hardware
    need = f"{best.peak_bytes / GIB:.3g} GiB per {hardware.device}"
    nodes = _nodes_that_fit(workload)
    account = verdict_of(workload, best.candidate).account
    kind, count = max(account.by_kind().items(), key=lambda item: item[1])
    largest = f"the largest part is {kind.replace('_', ' ')}, {count / GIB:.3g} GiB"
    return PlanError(
        f"no layout fits: the best ({best.candidate}) needs {need}, {hardware.name} has "
        f"{hardware.memory_gib:.3g}; {f'try nodes: {nodes}' if nodes else largest}"
    )


def _nodes_that_fit(workload: Workload) -> int:
    """The least doubling of the nodes with which some layout fits; 0 when none does."""
    cluster = workload.job.cluster
    factor = 2
    while cluster.nodes * factor <= MOST_NODES_TRIED:
        ranks = cluster.ranks * factor if cluster.ranks else None
        more = cluster.model_copy(update={"nodes": cluster.nodes * factor, "ranks": ranks})
        job = workload.job.model_copy(update={"cluster": more})
        larger = replace(workload, job=job)
        if _some_fit(larger):
            return more.nodes
        factor *= 2
    return 0


def _some_fit(workload: Workload) -> bool:
    try:
        layouts, _ = train_layouts(workload)
        degrees, _ = rollout_degrees(workload)
    except PlanError:
        return False  # what the user fixed does not multiply to more ranks
    return bool(_judge(workload, layouts, degrees)[1])
