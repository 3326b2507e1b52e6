"""A rehearsal: a plan walked with null engines, with its checkpoints, stops and resumption."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

from plans.dataflow import Role
from plans.plan import Plan
from plans.record import StepRecord
from runtime import checkpoint
from runtime.context import RankContext
from runtime.engines.null import NullWork, null_work
from runtime.events import EventLog, open_lines
from runtime.metrics import METRICS, drop_later_lines
from runtime.stragglers import watched
from runtime.versions import run_versions
from runtime.walk import Journal, walk

# Steps of a rehearsal that does not say how many.
REHEARSED_STEPS = 2
# The trace of a rank does not tell which it is; two that learn keep one each.
LEARNING = (Role.ACTOR_TRAIN, Role.CRITIC)


def rehearse(context: RankContext) -> bool:
    """Walk the steps of a plan with null engines; whether all that was asked for is done.

    OutOfStep when the ranks did not meet in the same order.
    """
    begin = time.perf_counter()
    journal = Journal(context.control)
    events = EventLog(context.run_folder if context.rank == 0 else None)
    rehearsal = Rehearsal(context, events, null_work(context.plan, journal))
    events.event("start", attempt=context.attempt, versions=run_versions(context.control))
    steps = rehearsal.resume()
    done = rehearsal.walk(journal, steps)
    events.event(
        "rehearsed" if done else "stop",
        step=rehearsal.step,
        ranks=journal.size,
        steps=rehearsal.last,
        phases=[phase.name for phase in context.plan.phases],
        order_digest=journal.compare(),
        meetings=journal.meetings,
        seconds=round(time.perf_counter() - begin, 3),
    )
    events.close()
    return done


@dataclass(slots=True)
class Rehearsal:
    """Where a rehearsal stands."""

    context: RankContext
    events: EventLog
    work: NullWork
    step: int = 0

    @property
    def last(self) -> int:
        """The step it ends with: a few, or those that were asked for."""
        if self.context.until is None:
            return min(self.context.plan.job.steps, REHEARSED_STEPS)
        return self.context.last_step

    def resume(self) -> range:
        """Stand where the last attempt stopped; the steps that are left."""
        found = None
        if self.context.resume:
            with self.context.outside("checkpoint"):
                found = checkpoint.load_latest(
                    self._engines,
                    self.context.control,
                    self.context.run_folder,
                    self.context.plan,
                    self.events,
                )
        if found is not None:
            self.step = found.step
            self.events.event("resume", step=found.step, folder=found.folder.name)
        if self.context.rank == 0:
            drop_later_lines(self.context.run_folder / METRICS, self.step)
        return range(self.step + 1, self.last + 1)

    def walk(self, journal: Journal, steps: range) -> bool:
        """Do the steps until somebody asks to stop; whether the last is done."""
        context = self.context
        walked = walk(context.plan, journal, self.work, context.recorder, steps)
        for record in watched(walked, self.events, context.attempt_folder / "heartbeat"):
            self.step = record.step
            _write_metrics(context, record)
            stop = context.stop_asked()
            if stop or record.step == self.last or _is_due(context.plan, record.step):
                self._save()
            if stop:
                break
        return self.step == self.last

    def _save(self) -> None:
        context = self.context
        saver = checkpoint.Saver(
            engines=self._engines,
            control=context.control,
            run_folder=context.run_folder,
            plan=context.plan,
            events=self.events,
        )
        with context.outside("checkpoint"):
            saver.save(self.step, {})
            saver.wait()

    @property
    def _engines(self) -> dict[Role, checkpoint.Saved]:
        plan, rank = self.context.plan, self.context.rank
        mine = [role for role in LEARNING if plan.has(role) and plan.place(role, rank) is not None]
        return dict.fromkeys(mine, self.work.engine)


def _is_due(plan: Plan, step: int) -> bool:
    return step % plan.checkpoint_every == 0


def _write_metrics(context: RankContext, record: StepRecord) -> None:
    """Rank 0 appends the line of a step to metrics.jsonl."""
    if context.rank == 0:
        with open_lines(context.run_folder / METRICS) as file:
            file.write(json.dumps({"step": record.step, **record.metrics}) + "\n")
