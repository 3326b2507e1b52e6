"""Text about a run while it runs: the line of a step."""

from __future__ import annotations

from plans.record import StepRecord
from plans.units import count_text, seconds_text

SEPARATOR = " · "
SHOWN = (
    ("reward/mean", "reward", ".3f"),
    ("actor/kl", "kl", ".4f"),
    ("actor/pg_loss", "loss", ".3f"),
)
SHORT_NAMES = {
    "old_log_prob": "old",
    "update_actor": "update",
    "update_critic": "critic",
}
# Phases below this share of the step are left out of its line.
LEAST_SHARE = 0.02


def step_line(
    record: StepRecord, *, plan_seconds: float, steps: int, eta_seconds: float | None
) -> str:
    """'step  12/300 · reward 0.412 · ... · 0.31 s (plan 0.28) · gen 0.1 update 0.1 · eta 40 s'.

    What the step did not measure is left out; phases stand in order of their time.
    """
    metrics = record.metrics
    parts = [f"step {record.step:>{len(str(steps))}}/{steps}"]
    parts += [f"{word} {metrics[name]:{style}}" for name, word, style in SHOWN if name in metrics]
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
