"""An estimate as JSON holds it; docs/schema/estimate.json says what each key means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import PurePath
from typing import Any

from plans.estimate import Estimate, Interval, MemoryEstimate, PhaseEstimate
from plans.reports.compare import answers_data
from plans.reports.facts import assumptions, levers_of
from plans.reports.judged import NOTHING, Judgement, judged_data
from plans.whatif import Answer

FORMAT = 2


def estimate_data(
    estimate: Estimate, answers: Sequence[Answer] = (), judged: Judgement = NOTHING
) -> dict[str, Any]:
    """Seconds, bytes and totals with their intervals; what-ifs and judgement where asked for."""
    plan, found = estimate.plan, estimate.search
    return {
        "format": FORMAT,
        "plan": plan.digest,
        "name": plan.job.name,
        "model": {
            "name": PurePath(plan.job.model.path).name,
            "parameters": plan.model.parameter_count,
        },
        "cluster": {
            "hardware": estimate.hardware.name,
            "nodes": plan.nodes,
            "ranks_per_node": plan.ranks_per_node,
            "world_size": plan.world_size,
            "groups": [asdict(group) for group in plan.groups],
        },
        "precision": plan.precision,
        "calibration": found.workload.machine.level,
        "pools": [asdict(pool) for pool in plan.pools],
        "placements": [asdict(one) for one in plan.placements],
        "phases": [_phase(estimate, phase) for phase in estimate.phases],
        "outside": [_phase(estimate, phase) for phase in estimate.outside],
        "memory": [_memory(one) for one in estimate.memory],
        "reshard": asdict(plan.reshard),
        "totals": _totals(estimate),
        "proof": {
            **asdict(found.proof),
            "gap": found.proof.gap,
            "space": found.space,
            "epsilon": found.epsilon,
            "chosen": found.chosen,
        },
        "optimum": found.optimum.data(),
        "layouts": [one.data() for one in found.ranked],
        "rejections": [{"what": one.what, "reason": one.reason} for one in found.rejections],
        "levers": levers_of(estimate),
        "assumptions": list(assumptions(estimate)),
        "what_ifs": answers_data(answers),
        **judged_data(found, judged),
    }


def _totals(estimate: Estimate) -> dict[str, Any]:
    dollars, plan = estimate.dollars, estimate.plan
    prices = estimate.prices or (None,) * len(plan.groups)
    groups = zip(plan.groups, estimate.group_hours, prices, strict=True)
    return {
        "step_seconds": asdict(estimate.step),
        "run_seconds": asdict(estimate.run),
        "device_hours": asdict(estimate.device_hours),
        "response_tokens_per_day": estimate.tokens_per_day,
        "dollars": asdict(dollars) if dollars else None,
        "groups": [
            {
                "name": group.name,
                "device_hours": asdict(hours),
                "price": {**asdict(price), "as_of": estimate.priced} if price else None,
            }
            for group, hours, price in groups
        ],
        "jobs": estimate.chain.jobs,
        "stops": list(estimate.chain.stops),
        "checkpoint_every": estimate.plan.checkpoint_every,
    }


def _phase(estimate: Estimate, phase: PhaseEstimate) -> dict[str, Any]:
    return {
        **asdict(phase),
        "role": str(phase.role),
        "share": _share(estimate.step, phase.seconds),
    }


def _share(step: Interval, seconds: Interval) -> float:
    return seconds.expected / step.expected if step.expected else 0.0


def _memory(one: MemoryEstimate) -> dict[str, Any]:
    return {**asdict(one), "total_bytes": one.total, "fits": one.total <= one.capacity_bytes}
