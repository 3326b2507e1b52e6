"""Estimate: a plan with its seconds, bytes and totals, and the interval they come with."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from plans.chain import Chain, chain_of
from plans.cost import BACKWARD_PASSES, layer_flops
from plans.dataflow import Role
from plans.freeze import plan_of
from plans.hardware import HardwareSpec
from plans.memory import LEARNING, SCORING, MemoryUse, stage_memory, stages_to_check
from plans.plan import PhasePlan, Plan
from plans.search import Search
from plans.timeline import PhaseTime, step_times
from plans.units import HOUR, TERA
from plans.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseEstimate:
    """A phase of the step: what binds it, and tokens a second and FLOPs a second of one device."""

    name: str
    seconds: float
    bound: str
    tokens_per_second: float
    flops_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """The fullest moment of a run: in which phase, on which rank, and the account."""

    phase: str
    rank: int
    use: MemoryUse


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a run will take, before it is queued."""

    search: Search
    plan: Plan
    phases: tuple[PhaseEstimate, ...]
    peak: Peak
    chain: Chain

    @property
    def hardware(self) -> HardwareSpec:
        return self.search.workload.hardware

    @property
    def step_seconds(self) -> float:
        return self.plan.step_seconds

    @property
    def device_hours(self) -> float:
        return self.chain.seconds / HOUR * self.plan.world_size

    def low(self, value: float) -> float:
        """The lower end of the stated interval of a duration."""
        return value * self.hardware.band[0]

    def high(self, value: float) -> float:
        """The upper end of the stated interval of a duration."""
        return value * self.hardware.band[1]

    def data(self) -> dict[str, Any]:
        """The estimate as JSON holds it; seconds and bytes, with the interval beside them."""
        return {
            "plan": self.plan.digest,
            "name": self.plan.job.name,
            "hardware": self.hardware.name,
            "world_size": self.plan.world_size,
            "calibration": self.hardware.calibration,
            "band": list(self.hardware.band),
            "phases": [asdict(phase) for phase in self.phases],
            "step_seconds": self.step_seconds,
            "run_seconds": self.chain.seconds,
            "device_hours": self.device_hours,
            "jobs": self.chain.jobs,
            "stops": list(self.chain.stops),
            "peak": {
                "phase": self.peak.phase,
                "rank": self.peak.rank,
                "bytes": self.peak.use.total,
                "capacity_bytes": self.hardware.memory_bytes,
                "kinds": dict(self.peak.use.items()),
            },
            "reshard": asdict(self.plan.reshard),
            "judged": self.search.judged,
            "layouts": [one.data() for one in self.search.ranked],
            "rejections": [
                {"what": one.what, "reason": one.reason} for one in self.search.rejections
            ],
        }


def estimate_of(found: Search) -> Estimate:
    """The estimate of the best plan of a search; PlanError when the queue's limit is too short."""
    workload, candidate = found.workload, found.best.candidate
    plan = plan_of(workload, candidate)
    return Estimate(
        search=found,
        plan=plan,
        phases=tuple(
            _phase_estimate(workload, phase, time)
            for phase, time in zip(plan.phases, step_times(workload, candidate), strict=True)
        ),
        peak=_peak(found, plan),
        chain=chain_of(plan, workload.hardware.band[1]),
    )


def _phase_estimate(workload: Workload, phase: PhasePlan, time: PhaseTime) -> PhaseEstimate:
    tokens, passes = _work(workload, phase.name)
    flops = tokens * passes * _forward_flops_per_token(workload)
    rate = workload.hardware.flops_per_second(workload.precision) * workload.world_size
    seconds = max(phase.seconds, 1 / TERA)
    return PhaseEstimate(
        name=phase.name,
        seconds=phase.seconds,
        bound=time.cost.bound,
        tokens_per_second=tokens / seconds / workload.world_size,
        flops_share=flops / seconds / rate,
    )


def _work(workload: Workload, phase: str) -> tuple[int, float]:
    """Tokens a phase works on, and the passes over them; recomputation is not work."""
    sequences = workload.job.batch.sequences
    if phase == "gen":
        return sequences * workload.job.tokens.response, 1.0
    if phase in SCORING or (phase == "reward" and workload.reward_model):
        return sequences * workload.sequence_tokens, 1.0
    if phase in LEARNING:
        return sequences * workload.sequence_tokens, 1 + BACKWARD_PASSES
    return 0, 0.0


def _forward_flops_per_token(workload: Workload) -> float:
    model = workload.model
    head = 2.0 * model.hidden_size * model.vocab_size
    return head + model.layer_count * layer_flops(model, 1, workload.sequence_tokens)


def _peak(found: Search, plan: Plan) -> Peak:
    """The fullest phase of the step, its fullest stage, and the first rank of that stage."""
    workload, candidate = found.workload, found.best.candidate
    moments = [
        (stage_memory(workload, candidate, phase.name, stage), phase.name, stage)
        for phase in plan.phases
        for stage in stages_to_check(candidate.train)
    ]
    use, name, stage = max(moments, key=lambda moment: moment[0].total)
    layout = plan.placement(Role.ACTOR_TRAIN).layout
    return Peak(phase=name, rank=layout.rank_at(pp=stage), use=use)
