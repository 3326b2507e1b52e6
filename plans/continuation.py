"""Whether a run may go on with another plan: where it runs may change, what it learns may not."""

from __future__ import annotations

from typing import Any

from plans.plan import Plan

# Of the job file: where it runs, how long, and what is kept. All else decides what is learned.
FREE = ("cluster", "roles", "slurm", "steps", "evaluate", "checkpoint", "experience")
# The same of a part: how a batch is cut into what memory holds.
FREE_PARTS = {("batch", "micro_samples"), ("batch", "micro_tokens"), ("reward", "workers")}


def changed_learning(begun: Plan, now: Plan) -> list[str]:
    """What a run may not change on its way, as 'key: was A, is B'; empty when it may go on."""
    told = [
        f"{key}: was {old}, is {new}"
        for key, old, new in _differences(begun.data()["job"], now.data()["job"])
        if key.split(".")[0] not in FREE and tuple(key.split(".")) not in FREE_PARTS
    ]
    if begun.model != now.model:
        told.append("model: another config.json")
    if begun.reward_model != now.reward_model:
        told.append("reward.model: another config.json")
    if begun.precision != now.precision:
        told.append(f"precision: was {begun.precision}, is {now.precision}")
    return told


def _differences(old: Any, new: Any, at: str = "") -> list[tuple[str, Any, Any]]:
    """(dotted key, value, value) wherever two JSON values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        names = [*old, *(name for name in new if name not in old)]
        return [
            found
            for name in names
            for found in _differences(old.get(name), new.get(name), f"{at}.{name}".lstrip("."))
        ]
    return [] if old == new else [(at, old, new)]
