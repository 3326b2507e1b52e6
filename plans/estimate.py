"""Estimate: a plan with its seconds, bytes and totals, each with the interval it comes with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from plans.chain import Chain, chain_of
from plans.cost import BACKWARD_PASSES, layer_flops
from plans.dataflow import Role
from plans.hardware import HardwareSpec
from plans.memory import LEARNING, SCORING, stage_memory, stages_to_check
from plans.plan import PhasePlan, Plan
from plans.prices import Price
from plans.search import Search
from plans.timeline import PhaseTime, outside_times, step_times
from plans.units import HOUR, TERA
from plans.workload import Workload

# Kinds of seconds in the words of a reader.
KINDS = {"network": "link", "overhead": "launch"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An expected value and the 80 % interval around it."""

    low: float
    expected: float
    high: float

    def __mul__(self, factor: float) -> Interval:
        return Interval(
            low=self.low * factor, expected=self.expected * factor, high=self.high * factor
        )

    def __add__(self, other: Interval) -> Interval:
        """The sum of two values that err together, the worst case for its width."""
        return Interval(
            low=self.low + other.low,
            expected=self.expected + other.expected,
            high=self.high + other.high,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseEstimate:
    """A phase: its seconds, what they go to, and tokens and FLOPs a second of one device.

    `parts` are seconds by kind and add up to the expected seconds; `limiter` is the kind that
    takes most. `flops_share` is model FLOPs over the peak of the pool's devices (MFU);
    recomputation is not work.
    """

    name: str
    role: Role
    pool: str
    stage: str
    seconds: Interval
    parts: dict[str, float]
    limiter: str
    tokens_per_second: float
    flops_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """Bytes by kind of the fullest rank of a pool while a phase lasts."""

    phase: str
    pool: str
    rank: int
    kinds: dict[str, float]
    capacity_bytes: float

    @property
    def total(self) -> float:
        return sum(self.kinds.values())

    @property
    def share(self) -> float:
        return self.total / self.capacity_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a run will take, before it is queued."""

    search: Search
    plan: Plan
    phases: tuple[PhaseEstimate, ...]
    outside: tuple[PhaseEstimate, ...]
    memory: tuple[MemoryEstimate, ...]
    chain: Chain
    price: Price | None = None
    priced: str = ""

    @property
    def hardware(self) -> HardwareSpec:
        return self.search.workload.hardware

    @property
    def step(self) -> Interval:
        """Seconds of a step."""
        return interval(self.hardware, self.plan.step_seconds)

    @property
    def run(self) -> Interval:
        """Seconds of the whole run, without the queue."""
        return interval(self.hardware, self.chain.seconds)

    @property
    def device_hours(self) -> Interval:
        return self.run * (self.plan.world_size / HOUR)

    @property
    def dollars(self) -> Interval | None:
        """At the typical price for the expected hours; the ends at the ends of both."""
        if self.price is None:
            return None
        hours = self.device_hours
        return Interval(
            low=hours.low * self.price.low,
            expected=hours.expected * self.price.typical,
            high=hours.high * self.price.high,
        )

    @property
    def peak(self) -> MemoryEstimate:
        """The fullest moment of a step."""
        return max(self.memory, key=lambda one: one.share)

    @property
    def tokens_per_day(self) -> float:
        """Response tokens of a day of steps."""
        job = self.plan.job
        return job.batch.sequences * job.tokens.response * 24 * HOUR / self.plan.step_seconds

    def starts(self) -> Iterator[tuple[PhaseEstimate, float]]:
        """Each phase with the second of the step at which it begins.

        The phases of a pool follow one another, and a stage begins when every pool has ended
        the stage before.
        """
        begun, ends, stage = 0.0, dict.fromkeys((pool.name for pool in self.plan.pools), 0.0), ""
        for phase in self.phases:
            if phase.stage != stage:
                begun, stage = max(ends.values()), phase.stage
            start = max(begun, ends[phase.pool])
            ends[phase.pool] = start + phase.seconds.expected
            yield phase, start

    def idle_seconds(self, pool: str) -> float:
        """Seconds of a step in which the devices of a pool have no phase to work in."""
        busy = sum(one.seconds.expected for one in self.phases if one.pool == pool)
        return max(0.0, self.plan.step_seconds - busy)


def estimate_of(found: Search, prices: tuple[Price | None, str] = (None, "")) -> Estimate:
    """The estimate of the best plan of a search; PlanError when the queue's limit is too short."""
    workload, candidate = found.workload, found.best.candidate
    plan = found.plan()
    steps, outside = step_times(workload, candidate), outside_times(workload, candidate)
    price, priced = prices
    return Estimate(
        search=found,
        plan=plan,
        phases=_phases(workload, plan, plan.phases, steps),
        outside=_phases(workload, plan, plan.outside, outside),
        memory=tuple(_memory(found, plan, phase.name) for phase in plan.phases),
        chain=chain_of(plan, workload.hardware.band[1]),
        price=price,
        priced=priced,
    )


def interval(hardware: HardwareSpec, seconds: float) -> Interval:
    low, high = hardware.band
    return Interval(low=seconds * low, expected=seconds, high=seconds * high)


def _phases(
    workload: Workload, plan: Plan, phases: tuple[PhasePlan, ...], times: tuple[PhaseTime, ...]
) -> tuple[PhaseEstimate, ...]:
    return tuple(
        _phase_estimate(workload, plan, phase, time)
        for phase, time in zip(phases, times, strict=True)
    )


def _phase_estimate(
    workload: Workload, plan: Plan, phase: PhasePlan, time: PhaseTime
) -> PhaseEstimate:
    tokens, passes = _work(workload, phase.name)
    flops = tokens * passes * _forward_flops_per_token(workload)
    rate = workload.hardware.flops_per_second(workload.precision) * workload.world_size
    seconds = max(phase.seconds, 1 / TERA)
    parts = {name: getattr(time.cost, name) for name in ("compute", "memory", *KINDS)}
    return PhaseEstimate(
        name=phase.name,
        role=phase.role,
        pool=plan.pools[0].name,
        stage=phase.name,
        seconds=interval(workload.hardware, phase.seconds),
        parts={KINDS.get(name, name): part for name, part in parts.items() if part},
        limiter=KINDS.get(time.cost.bound, time.cost.bound),
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


def _memory(found: Search, plan: Plan, phase: str) -> MemoryEstimate:
    """The fullest stage of a phase, on the first rank of that stage."""
    workload, candidate = found.workload, found.best.candidate
    uses = [
        (stage_memory(workload, candidate, phase, stage), stage)
        for stage in stages_to_check(candidate.train)
    ]
    use, stage = max(uses, key=lambda one: one[0].total)
    layout = plan.placement(Role.ACTOR_TRAIN).layout
    return MemoryEstimate(
        phase=phase,
        pool=plan.pools[0].name,
        rank=layout.rank_at(pp=stage),
        kinds={kind: float(count) for kind, count in use.items() if count},
        capacity_bytes=float(workload.hardware.memory_bytes),
    )
