"""A replay beside the run it repeats: whether they agree, and where they part first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def first_difference(found: Mapping[str, Any], tolerance: float) -> dict[str, Any] | None:
    """The first value in the order of steps and phases that is off by more; None when none is.

    `found`: {"steps": [{"step", "values": [{"name", "difference", ...}]}], "weights": [...]}.
    The tolerance is of the value itself, or of 1 where that is smaller.
    """
    return next((one for one in _all(found) if _off(one, tolerance)), None)


def largest_difference(found: Mapping[str, Any]) -> float | None:
    """Over all values and weights; None where one is no number."""
    differences = [one["difference"] for one in _all(found)]
    return None if None in differences else max(differences, default=0.0)


def replayed_text(result: Mapping[str, Any]) -> str:
    """The result on a few lines, for a person."""
    first, last = result["first"], result["last"]
    values = sum(len(step["values"]) for step in result["steps"])
    head = f"{result['run']} · steps {first} to {last} learned from again · {values} values"
    lines = [head + (" and the weights compared" if result["weights"] else " compared")]
    parted = result["parted"]
    if parted is None:
        exact = "equal bit for bit" if result["largest"] == 0 else "within the tolerance"
        lines.append(f"{exact}; largest difference {result['largest']:.3g}")
    else:
        lines.append(f"parted    {_place(parted)}")
        lines += [f"then      {_place(one)}" for one in result["more"]]
    if not result["weights"]:
        lines.append(f"weights   not compared: the run has no checkpoint of step {last}")
    return "\n".join(lines)


def others(found: Mapping[str, Any], tolerance: float, most: int) -> list[dict[str, Any]]:
    """What else is off, after the first."""
    return [one for one in _all(found) if _off(one, tolerance)][1 : most + 1]


def _all(found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for step in found["steps"]:
        for value in step["values"]:
            yield {"step": step["step"], **value}
    yield from found["weights"]


def _off(one: Mapping[str, Any], tolerance: float) -> bool:
    if one["difference"] is None:
        return True
    scale = max(1.0, abs(one.get("recorded") or 0.0))
    return bool(one["difference"] > tolerance * scale)


def _place(one: Mapping[str, Any]) -> str:
    """'step 3, actor/grad_norm: 0.412 then, 0.413 now, off by 0.001'."""
    off = one["difference"]
    by = "no number, or another shape" if off is None else f"off by {off:.3g}"
    if "role" in one:
        return f"weights of {one['role']}, {one['name']}: {by}"
    if "recorded" in one:
        by = f"{one['recorded']} then, {one['replayed']} now, {by}"
    return f"step {one['step']}, {one['name']}: {by}"
