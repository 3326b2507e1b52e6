"""A run against its plan: seconds of each phase as promised and as measured."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median, quantiles

from plans.plan import Plan
from plans.record import StepRecord
from plans.reports.facts import DIGEST_SHOWN
from plans.reports.rows import Rows
from plans.reports.words import COLUMNS, SEPARATOR, named, number, plural, table
from plans.source import UserError
from plans.values import frozen

PREFIX = "timing_s/"
# The first step compiles and warms up: it is told apart and not compared.
WARM_UP_STEPS = 1
WHOLE = "step"


@frozen
class MeasuredPhase:
    """Seconds of a phase: as planned, and the median of the steps with 8 of 10 of them between.

    `planned` is None for what a plan says nothing about, such as writing experience.
    """

    name: str
    planned: float | None
    measured: float
    low: float
    high: float

    @property
    def ratio(self) -> float | None:
        """Measured over planned; None where nothing was planned."""
        return self.measured / self.planned if self.planned else None


@frozen
class MeasuredRun:
    """The steady steps of a run beside its plan, and its first step's seconds."""

    plan: Plan
    steps: int
    first_seconds: float
    phases: tuple[MeasuredPhase, ...]

    def phase(self, name: str) -> MeasuredPhase:
        """The phase of that name; KeyError when it was not measured."""
        for phase in self.phases:
            if phase.name == name:
                return phase
        raise KeyError(name)

    @property
    def step(self) -> MeasuredPhase:
        return self.phase(WHOLE)


def measured_run(plan: Plan, records: Sequence[StepRecord], place: str) -> MeasuredRun:
    """The steps of a run against its plan; UserError when there are too few."""
    timed = _timed(records)
    later = timed[WARM_UP_STEPS:]
    if not later:
        text = f"{place}: {plural(len(timed), 'step')} measured, at least 2 are needed"
        raise UserError(text)
    planned = {phase.name: phase.seconds for phase in plan.phases}
    planned[WHOLE] = plan.step_seconds
    found = {
        name.removeprefix(PREFIX): None
        for record in later
        for name in record.metrics
        if name.startswith(PREFIX)
    }
    names = [*(name for name in planned if name in found), *(n for n in found if n not in planned)]
    return MeasuredRun(
        plan=plan,
        steps=len(later),
        first_seconds=timed[0].metrics[f"{PREFIX}{WHOLE}"],
        phases=tuple(_phase(name, planned.get(name), later) for name in names),
    )


def steady(records: Sequence[StepRecord]) -> list[float]:
    """Seconds of the steps that are compared."""
    return [record.metrics[f"{PREFIX}{WHOLE}"] for record in _timed(records)[WARM_UP_STEPS:]]


def measured_text(run: MeasuredRun, width: int = COLUMNS) -> str:
    """The table of phases, and what the step came to."""
    plan, step = run.plan, run.step
    title = (plan.job.name, f"plan {plan.digest[:DIGEST_SHOWN]}", plural(run.steps, "steady step"))
    rows: Rows = [("phase", "planned", "measured", "(8 of 10)", "measured/planned")]
    rows += [_row(phase) for phase in run.phases]
    first = f"{number(run.first_seconds)} s, {number(run.first_seconds / step.measured)} times"
    lines = (
        SEPARATOR.join(title),
        "",
        *table(rows, " rr r", width),
        "",
        *named("first step", f"{first} a steady one", width),
    )
    return "\n".join((*lines, ""))


def measured_data(run: MeasuredRun) -> dict[str, object]:
    """As JSON holds it."""
    return {
        "plan": run.plan.digest,
        "name": run.plan.job.name,
        "steps": run.steps,
        "first_step_seconds": run.first_seconds,
        "phases": [
            {
                "name": each.name,
                "planned_seconds": each.planned,
                "measured_seconds": each.measured,
                "low_seconds": each.low,
                "high_seconds": each.high,
                "ratio": each.ratio,
            }
            for each in run.phases
        ],
    }


def _timed(records: Sequence[StepRecord]) -> list[StepRecord]:
    return [record for record in records if f"{PREFIX}{WHOLE}" in record.metrics]


def _phase(name: str, planned: float | None, records: Sequence[StepRecord]) -> MeasuredPhase:
    key = f"{PREFIX}{name}"
    values = sorted(record.metrics[key] for record in records if key in record.metrics)
    tenths = quantiles(values, n=10, method="inclusive") if len(values) > 1 else values
    return MeasuredPhase(
        name=name, planned=planned, measured=median(values), low=tenths[0], high=tenths[-1]
    )


def _row(phase: MeasuredPhase) -> tuple[str, ...]:
    return (
        phase.name,
        "-" if phase.planned is None else number(phase.planned),
        number(phase.measured),
        f"({number(phase.low, 2)}-{number(phase.high, 2)})",
        "" if phase.ratio is None else f"{phase.ratio:.2f}",
    )
