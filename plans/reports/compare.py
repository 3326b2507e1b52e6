"""Several plans side by side: of other job files, of changed jobs, and the answers to what-ifs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from plans.estimate import Estimate
from plans.placement import Placement
from plans.plan import Plan
from plans.reports.facts import DIGEST_SHOWN, machine_text
from plans.reports.rows import Rows, ends, layout_text
from plans.reports.words import COLUMNS, change, gib, number, table
from plans.units import bytes_text, seconds_text
from plans.whatif import Answer

Named = tuple[str, Estimate]
# Settings of the engines that get a row.
SETTINGS = {
    "micro_batch": "  micro-batch",
    "micro_tokens": "  packed tokens",
    "recompute": "  recompute",
    "optimizer_offload": "  optimizer offload",
    "concurrency": "  concurrency",
    "kv_cache_bytes": "  KV cache",
}
WHAT = ("job", "model", "machine")


def compare_text(estimates: Sequence[Named], width: int = COLUMNS) -> str:
    """A column an estimate; a row that says the same of all stands above, once."""
    rows = [row for row in _rows([one for _, one in estimates]) if any(row[1:])]
    same = [row for row in rows if len(set(row[1:])) == 1 and row[0] in (*WHAT, *SETTINGS.values())]
    head: Rows = [(row[0], row[1]) for row in same if row[0] in WHAT] or [("", "")]
    body: Rows = [("", *(name for name, _ in estimates))]
    body += [row for row in rows if row not in same]
    return "\n".join((*table(head, width=width), "", *table(body, width=width), "")).lstrip("\n")


def compare_data(estimates: Sequence[Named]) -> list[dict[str, Any]]:
    """As JSON holds it, one object an estimate."""
    first = estimates[0][1].step.expected
    return [
        {
            "name": name,
            "plan": one.plan.digest,
            "layout": str(one.search.best.candidate),
            "step_seconds": one.step.expected,
            "ratio": one.step.expected / first,
            "phases": {phase.name: phase.seconds.expected for phase in one.phases},
            "peak_bytes": one.peak.total,
            "device_hours": one.device_hours.expected,
            "dollars": one.dollars.expected if one.dollars else None,
            "run_seconds": one.run.expected,
        }
        for name, one in estimates
    ]


def answers_rows(estimate: Estimate, answers: Sequence[Answer]) -> Rows:
    """A row an answer: what changes of the step's seconds, of device hours, and the layout."""
    device = estimate.hardware.device
    rows: Rows = [("what if", "step s", "time", f"{device}-hours", "dollars", "plan, or why none")]
    for one in answers:
        if one.estimate is None:
            rows.append((one.question.text, "-", "", "", "", one.reason))
            continue
        found = one.estimate
        rows.append(
            (
                one.question.text,
                number(found.step.expected),
                change(found.step.expected / estimate.step.expected),
                number(found.device_hours.expected),
                number(found.dollars.expected) if found.dollars else "",
                str(found.search.best.candidate),
            )
        )
    return rows


def answers_text(estimate: Estimate, answers: Sequence[Answer], width: int = COLUMNS) -> str:
    """The answers as a table."""
    return "\n".join((*table(answers_rows(estimate, answers), " rrrr", width), ""))


def answers_data(answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """As JSON holds it; `layout` is null where there is no plan, and `reason` says why."""
    return [
        {
            "what": one.question.text,
            "changes": [str(each) for each in one.question.changes],
            "layout": str(one.estimate.search.best.candidate) if one.estimate else None,
            "step_seconds": one.estimate.step.expected if one.estimate else None,
            "device_hours": one.estimate.device_hours.expected if one.estimate else None,
            "reason": one.reason,
        }
        for one in answers
    ]


def _rows(estimates: list[Estimate]) -> Rows:
    """What the jobs are, what was decided, and what it takes."""
    first = estimates[0]
    plans = [one.plan for one in estimates]
    rows: Rows = [("job", *(plan.job.name for plan in plans))]
    rows.append(("model", *(PurePath(plan.job.model.path).name for plan in plans)))
    rows.append(("machine", *(machine_text(one) for one in estimates)))
    rows.append(("plan", *(plan.digest[:DIGEST_SHOWN] for plan in plans)))
    for role in dict.fromkeys(str(each.role) for plan in plans for each in plan.placements):
        placed = [_placement(plan, role) for plan in plans]
        rows.append((role, *(layout_text(each) if each else "-" for each in placed)))
        for name, text in SETTINGS.items():
            rows.append((text, *(_setting(each, name) for each in placed)))
    names = dict.fromkeys(phase.name for one in estimates for phase in one.phases)
    rows += [(f"{name} s", *(_seconds(one, name) for one in estimates)) for name in names]
    rows.append(("step s", *(f"{number(one.step.expected)} {ends(one.step)}" for one in estimates)))
    ratios = (change(one.step.expected / first.step.expected) for one in estimates[1:])
    rows.append(("step time", "reference", *ratios))
    rows.append(("peak GiB", *(f"{gib(one.peak.total)} {one.peak.phase}" for one in estimates)))
    rows.append(("run", *(seconds_text(one.run.expected) for one in estimates)))
    hours = (f"{number(one.device_hours.expected)}" for one in estimates)
    rows.append((f"{first.hardware.device}-hours", *hours))
    rows.append(("dollars", *(_dollars(one) for one in estimates)))
    rows.append(("jobs", *(str(one.chain.jobs) for one in estimates)))
    return rows


def _placement(plan: Plan, role: str) -> Placement | None:
    return next((one for one in plan.placements if one.role == role), None)


def _setting(placement: Placement | None, name: str) -> str:
    """A setting of the role's engine; '' where it has none of that name."""
    if placement is None:
        return ""
    for settings in (placement.train, placement.rollout):
        if settings is not None and hasattr(settings, name):
            value = getattr(settings, name)
            return bytes_text(value) if name.endswith("_bytes") else str(value)
    return ""


def _seconds(estimate: Estimate, name: str) -> str:
    found = [phase.seconds.expected for phase in estimate.phases if phase.name == name]
    return number(sum(found)) if found else "-"


def _dollars(estimate: Estimate) -> str:
    return number(estimate.dollars.expected) if estimate.dollars else ""
