"""Text about a run while it runs: the line of a step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from plans.record import StepRecord
from plans.units import count_text, seconds_text

SEPARATOR = " · "
SHOWN = (
    ("reward/mean", "reward", ".3f"),
    ("actor/kl", "kl", ".4f"),
    ("actor/pg_loss", "loss", ".3f"),
    ("actor/loss", "loss", ".3f"),
    ("actor/preferred", "preferred", ".2f"),
)
SHORT_NAMES = {
    "old_log_prob": "old",
    "update_actor": "update",
    "update_critic": "critic",
}
# Phases below this share of the step are left out of its line.
LEAST_SHARE = 0.02


def timeouts(records: Iterable[StepRecord]) -> int:
    """Answers of all steps that took their rule longer than reward.seconds."""
    return int(sum(one.metrics.get("reward/timeouts", 0.0) for one in records))


def timeouts_text(count: int) -> str:
    """'3 answers took their reward rule too long, and got 0 each'."""
    return f"{count} answers took their reward rule too long, and got 0 each"


def step_line(
    record: StepRecord, *, plan_seconds: float, steps: int, eta_seconds: float | None
) -> str:
    """'step  12/300 · reward 0.412 · ... · 0.31 s (plan 0.28) · gen 0.1 update 0.1 · eta 40 s'.

    What the step did not measure is left out; phases stand in order of their time.
    """
    metrics = record.metrics
    parts = [f"step {record.step:>{len(str(steps))}}/{steps}"]
    parts += [f"{word} {metrics[name]:{style}}" for name, word, style in SHOWN if name in metrics]
    if metrics.get("reward/timeouts"):
        parts.append(f"timeouts {metrics['reward/timeouts']:.0f}")
    if "response_length/mean" in metrics:
        parts.append(f"len {metrics['response_length/mean']:.3g}")
    if "perf/throughput" in metrics:
        parts.append(f"{count_text(metrics['perf/throughput'])} tok/s")
    seconds = metrics.get("timing_s/step")
    if seconds is not None:
        parts.append(f"{seconds:.3g} s (plan {plan_seconds:.3g})")
        parts.append(_phases(metrics, seconds))
    if eta_seconds is not None:
        parts.append(f"eta {seconds_text(round(eta_seconds))}")
    return SEPARATOR.join(part for part in parts if part)


def event_line(record: Mapping[str, Any]) -> str:
    """The line of one record of events.jsonl; '' for kinds that no person needs to see."""
    style = EVENTS.get(record["event"])
    return style(record) if style else ""


def _phases(metrics: dict[str, float], step_seconds: float) -> str:
    """'gen 0.12 update 0.1 ref 0.02': the phases that take a share worth showing."""
    prefix = "timing_s/"
    times = {
        name.removeprefix(prefix): seconds
        for name, seconds in metrics.items()
        if name.startswith(prefix) and name != f"{prefix}step"
    }
    shown = [name for name in times if times[name] >= LEAST_SHARE * step_seconds]
    shown.sort(key=lambda name: times[name], reverse=True)
    return " ".join(f"{SHORT_NAMES.get(name, name)} {times[name]:.2g}" for name in shown)


def _versions(record: Mapping[str, Any]) -> str:
    named = " · ".join(f"{name} {number}" for name, number in record["versions"].items())
    return f"attempt {record['attempt']} · {named}"


def _accuracy(record: Mapping[str, Any]) -> str:
    return f"accuracy {record['accuracy']:.3f} {record['when']} (step {record['step']})"


def _done(record: Mapping[str, Any]) -> str:
    before, after = record["accuracy_before"], record["accuracy_after"]
    change = "" if after is None else f" · accuracy {before:.3f} -> {after:.3f}"
    return f"done · {record['step']} steps in {seconds_text(record['wall_seconds'])}{change}"


def _rehearsed(record: Mapping[str, Any]) -> str:
    return (
        f"rehearsed {record['steps']} steps on {record['ranks']} ranks: {record['meetings']} "
        f"meetings in one order on all of them · {seconds_text(record['seconds'])}"
    )


EVENTS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "start": _versions,
    "supervised": lambda r: f"warm-up {r['step']}/{r['steps']} · loss {r['loss']:.3f}",
    "evaluate": _accuracy,
    "resume": lambda r: f"resumed after step {r['step']}",
    "checkpoint": lambda r: f"checkpoint {r['folder']}",
    "checkpoint_problem": lambda r: f"warning: {r['reason']}",
    "straggler": lambda r: f"warning: {r['reason']}",
    "dropped": lambda r: f"warning: {r['reason']}",
    "stop": lambda r: f"stopped after step {r['step']}; --resume goes on from there",
    "done": _done,
    "rehearsed": _rehearsed,
}
