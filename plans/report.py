"""Text of plans and estimates, for a terminal of 100 columns."""

from __future__ import annotations

from collections.abc import Iterator
from math import floor, log10
from pathlib import PurePath
from textwrap import fill

from plans.dataflow import Role
from plans.estimate import Estimate, PhaseEstimate
from plans.layout import ParallelLayout
from plans.placement import Placement
from plans.plan import Plan
from plans.search import Ranked, Search
from plans.units import GIB, bytes_text, count_text, seconds_text

COLUMNS = 100
NAME_COLUMNS = 15
DIGEST_SHOWN = 8
LAYOUTS_SHOWN = 20
BOUND_BY = {
    "compute": "arithmetic",
    "memory": "memory",
    "network": "network",
    "overhead": "launches",
}


def estimate_text(estimate: Estimate) -> str:
    """Header, placement, phases, totals, memory and the runner-up: one screen."""
    parts = (_header, _placements, _phases, _totals)
    return "\n\n".join("\n".join(part(estimate)) for part in parts) + "\n"


def plan_text(estimate: Estimate) -> str:
    """What a plan decides, without its seconds phase by phase."""
    parts = (_header, _placements, _decisions)
    return "\n\n".join("\n".join(part(estimate)) for part in parts) + "\n"


def explain_text(estimate: Estimate, wanted: dict[str, int]) -> str:
    """Why this plan: the layouts in order with what they lose, and why the others fell out.

    `wanted` narrows both lists to training layouts with these degrees, such as {'tp': 8}.
    """
    found = estimate.search
    kept = [one for one in found.ranked if _agrees(one.candidate.train, wanted)]
    refused = [one for one in found.rejections if _agrees(one.layout, wanted)]
    lines = [*_header(estimate), "", _four("layout", "step", "peak", "against the plan")]
    lines += [_ranked_line(found, one) for one in kept[:LAYOUTS_SHOWN]]
    if not kept:
        degrees = " ".join(f"{axis}{degree}" for axis, degree in wanted.items())
        lines.append(f"no layout with {degrees} fits")
    if len(kept) > LAYOUTS_SHOWN:
        lines.append(f"and {len(kept) - LAYOUTS_SHOWN} slower ones (--json lists them)")
    if refused:
        lines += ["", f"{'rejected':<28} why"]
        lines += [f"{one.what:<28} {one.reason}" for one in refused]
    return "\n".join((*lines, ""))


def _header(estimate: Estimate) -> Iterator[str]:
    plan, hardware, found = estimate.plan, estimate.hardware, estimate.search
    low, high = hardware.band
    model = PurePath(plan.job.model.path).name
    size = f"{count_text(plan.model.parameter_count)} parameters"
    nodes = plan.world_size // plan.ranks_per_node
    where = f"{nodes} × {plan.ranks_per_node} {hardware.title}"
    yield f"{plan.job.name} · {model} ({size}) · {where} · {plan.precision}"
    yield (
        f"plan {plan.digest[:DIGEST_SHOWN]} · fastest of {count_text(found.judged)} settings in "
        f"{len(found.ranked)} layouts that fit; {len(found.rejections)} rejected"
    )
    yield (
        f"calibration: {hardware.calibration}, coarse; "
        f"expect {low:g} to {high:g} times the planned seconds"
    )


def _placements(estimate: Estimate) -> Iterator[str]:
    plan = estimate.plan
    rollout = plan.placement(Role.ACTOR_ROLLOUT).layout
    actor = plan.placement(Role.ACTOR_TRAIN)
    pool = next(pool for pool in plan.pools if pool.name == actor.pool)
    last = pool.ranks.stop - 1
    ranks = f"{pool.first_rank}-{last}" if pool.rank_count > 1 else str(pool.first_rank)
    yield _four("placement", "ranks", "train", "rollout")
    yield _four(_role_names(plan), ranks, _layout_text(actor), _replicas_text(rollout))


def _phases(estimate: Estimate) -> Iterator[str]:
    device = estimate.hardware.device
    yield _six("phase", "seconds", "(low-high)", "share", "bound by", f"per {device}")
    step = estimate.step_seconds
    for phase in estimate.phases:
        yield _six(
            phase.name,
            number(phase.seconds),
            _interval(estimate, phase.seconds),
            f"{phase.seconds / step:.0%}",
            _bound_text(estimate, phase),
            _work_text(estimate, phase),
        )
    yield _six("step", number(step), _interval(estimate, step), "", _run_text(estimate), "")


def _totals(estimate: Estimate) -> Iterator[str]:
    hours, device = estimate.device_hours, estimate.hardware.device
    jobs, limit = estimate.chain.jobs, estimate.plan.job.slurm.time
    chain = "1 job" if jobs == 1 else f"a chain of {jobs} jobs"
    yield _line(
        "cost", f"{number(hours)} {device}-hours {_interval(estimate, hours)} · {chain} of {limit}"
    )
    yield from _decisions(estimate)
    if estimate.search.next_best:
        yield _line("next best", _next_best(estimate, estimate.search.next_best))
    response = estimate.plan.job.tokens.response
    yield _line("assumed", f"every response is {count_text(response)} tokens long, the limit")


def _decisions(estimate: Estimate) -> Iterator[str]:
    plan = estimate.plan
    train = plan.placement(Role.ACTOR_TRAIN).train
    rollout = plan.placement(Role.ACTOR_ROLLOUT).rollout
    assert train is not None, "the trained actor has training settings"
    assert rollout is not None, "the rollout has rollout settings"
    cache = bytes_text(rollout.kv_cache_bytes)
    yield _line(
        "settings",
        f"micro-batch {train.micro_batch}, recompute {train.recompute} · "
        f"{rollout.concurrency} sequences at a time, KV cache {cache} · "
        f"checkpoint every {_steps(plan.checkpoint_every)}",
    )
    yield _memory_line(estimate)


def _memory_line(estimate: Estimate) -> str:
    peak = estimate.peak
    kinds = ", ".join(
        f"{kind.replace('_', ' ')} {number(count / GIB)}"
        for kind, count in peak.use.items()
        if count
    )
    total = f"{number(peak.use.total / GIB)} of {number(estimate.hardware.memory_gib)} GiB"
    return _line("memory", f"peak {total} in {peak.phase} on rank {peak.rank}: {kinds}")


def _next_best(estimate: Estimate, other: Ranked) -> str:
    slower = other.step_seconds / estimate.search.best.step_seconds - 1
    return f"{other.candidate}: {slower:+.1%} time, peak {number(other.peak_bytes / GIB)} GiB"


def _ranked_line(found: Search, one: Ranked) -> str:
    slower = one.step_seconds / found.best.step_seconds - 1
    against = "the plan" if one is found.best else f"{slower:+.1%} time"
    peak = f"{number(one.peak_bytes / GIB)} GiB"
    return _four(str(one.candidate), f"{number(one.step_seconds)} s", peak, against)


def _run_text(estimate: Estimate) -> str:
    seconds = estimate.chain.seconds
    low, high = seconds_text(estimate.low(seconds)), seconds_text(estimate.high(seconds))
    return f"{_steps(estimate.plan.job.steps)}: {seconds_text(seconds)} ({low} - {high})"


def _bound_text(estimate: Estimate, phase: PhaseEstimate) -> str:
    if phase.name != "reshard":
        return BOUND_BY[phase.bound]
    summary = estimate.plan.reshard
    whole = summary.alias_bytes + summary.unshared_bytes
    return f"{BOUND_BY[phase.bound]}; {summary.alias_bytes / whole:.0%} shared"


def _work_text(estimate: Estimate, phase: PhaseEstimate) -> str:
    if phase.name == "reshard":
        return f"{bytes_text(estimate.plan.reshard.received_bytes)} received"
    if not phase.tokens_per_second:
        return ""
    return f"{count_text(phase.tokens_per_second)} tok/s, {phase.flops_share:.0%} of peak"


def _role_names(plan: Plan) -> str:
    names = [str(one.role) for one in plan.placements if one.role != Role.ACTOR_ROLLOUT]
    return ", ".join(names).replace(Role.ACTOR_TRAIN, "actor")


def _replicas_text(layout: ParallelLayout) -> str:
    return f"tp{layout.tp} × {layout.dp} replica{'s' * (layout.dp > 1)}"


def _layout_text(placement: Placement) -> str:
    sequence = placement.train is not None and placement.train.sequence_parallel
    return f"{placement.layout}{' sp' * sequence}"


def _agrees(layout: ParallelLayout, wanted: dict[str, int]) -> bool:
    return all(layout.degree(axis) == degree for axis, degree in wanted.items())


def _steps(count: int) -> str:
    return f"{count} step{'s' * (count > 1)}"


def _four(first: str, second: str, third: str, fourth: str) -> str:
    return f"{first:<28} {second:<9} {third:<20} {fourth}"


def _six(name: str, seconds: str, interval: str, share: str, bound: str, work: str) -> str:
    return f"{name:<14} {seconds:>8} {interval:<17} {share:>5}   {bound:<20} {work}".rstrip()


def _line(name: str, text: str) -> str:
    """A named line, wrapped under itself."""
    start = f"{name:<{NAME_COLUMNS}}"
    return fill(
        text,
        COLUMNS,
        initial_indent=start,
        subsequent_indent=" " * NAME_COLUMNS,
        break_on_hyphens=False,
    )


def _interval(estimate: Estimate, value: float) -> str:
    return f"({number(estimate.low(value))}-{number(estimate.high(value))})"


def number(value: float) -> str:
    """A number as a table shows it: '1,640', '61.2', '0.0064', '0.00017', never an exponent."""
    if value >= 1000 or value == 0:
        return f"{value:,.0f}"
    digits = 2 if value < 0.1 else 3
    value = float(f"{value:.{digits}g}")
    return f"{value:.{max(0, digits - 1 - floor(log10(value)))}f}"
