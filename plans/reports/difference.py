"""How two plans differ: what the jobs ask for, what was decided, and what it takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from plans.plan import Plan
from plans.reports.facts import DIGEST_SHOWN
from plans.reports.rows import layout_text, settings_text
from plans.reports.words import COLUMNS, change, number, table
from plans.units import bytes_text, seconds_text
from plans.values import frozen

NONE = "-"


@frozen
class Difference:
    """One thing that differs, in both plans; '-' where a plan has no such thing."""

    what: str
    before: str
    after: str
    note: str = ""


def differences(one: Plan, other: Plan) -> tuple[Difference, ...]:
    """What the job files ask for, the machine, layouts and settings, seconds and bytes."""
    if one.digest == other.digest:
        return ()
    jobs = (_flat(plan.job.model_dump(mode="json")) for plan in (one, other))
    return (*_settings(*jobs), *_machine(one, other), *_decided(one, other), *_taken(one, other))


def differences_text(
    one: Plan, other: Plan, found: tuple[Difference, ...], width: int = COLUMNS
) -> str:
    """The differences as a table; one line when the plans are the same."""
    first, second = one.digest[:DIGEST_SHOWN], other.digest[:DIGEST_SHOWN]
    if not found:
        return f"the same plan: {first}\n"
    rows = [("differs", f"{first} -> {second}")]
    for each in found:
        note = f" ({each.note})" if each.note else ""
        rows.append((each.what, f"{each.before} -> {each.after}{note}"))
    return "\n".join((*table(rows, width=width), ""))


def _settings(one: dict[str, Any], other: dict[str, Any]) -> Iterator[Difference]:
    for key in dict.fromkeys((*one, *other)):
        before, after = (_text(values.get(key)) for values in (one, other))
        if before != after:
            yield Difference(what=key, before=before, after=after)


def _machine(one: Plan, other: Plan) -> Iterator[Difference]:
    yield from _pair("model", one.model.architecture, other.model.architecture)
    sizes = (f"{each.model.parameter_count:,}" for each in (one, other))
    yield from _pair("parameters", *sizes)
    yield from _pair("ranks", str(one.world_size), str(other.world_size))
    yield from _pair("precision", one.precision, other.precision)


def _decided(one: Plan, other: Plan) -> Iterator[Difference]:
    both = [{str(each.role): each for each in plan.placements} for plan in (one, other)]
    for role in dict.fromkeys((*both[0], *both[1])):
        pair = [placements.get(role) for placements in both]
        yield from _pair(role, *(layout_text(each) if each else NONE for each in pair))
        told = (settings_text(each) if each else NONE for each in pair)
        yield from _pair(f"{role} settings", *told)
        yield from _pair(f"{role} pool", *(each.pool if each else NONE for each in pair))
    every = (f"every {plan.checkpoint_every} steps" for plan in (one, other))
    yield from _pair("checkpoint", *every)
    received = (bytes_text(plan.reshard.received_bytes) for plan in (one, other))
    yield from _pair("switch receives", *received)


def _taken(one: Plan, other: Plan) -> Iterator[Difference]:
    both = [
        {each.name: each.seconds for each in (*plan.phases, *plan.outside)} for plan in (one, other)
    ]
    for each, plan in zip(both, (one, other), strict=True):
        each["step"] = plan.step_seconds
    for name in dict.fromkeys((*both[0], *both[1])):
        before, after = (seconds.get(name) for seconds in both)
        ratio = change(after / before) if before and after else ""
        yield from _pair(name, _seconds(before), _seconds(after), ratio)
    first, second = (max(phase.peak_bytes for phase in plan.phases) for plan in (one, other))
    yield from _pair("peak memory", bytes_text(first), bytes_text(second), change(second / first))


def _pair(what: str, before: str, after: str, note: str = "") -> Iterator[Difference]:
    if before != after:
        yield Difference(what=what, before=before, after=after, note=note)


def _seconds(value: float | None) -> str:
    return NONE if value is None else seconds_text(value)


def _flat(data: dict[str, Any], at: str = "") -> dict[str, Any]:
    """Nested keys as 'batch.prompts'."""
    found: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{at}{key}.")
        else:
            found[f"{at}{key}"] = value
    return found


def _text(value: Any) -> str:
    if value is None:
        return NONE
    if isinstance(value, float):
        return f"{value:g}" if 0 < abs(value) < 0.001 else number(value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
