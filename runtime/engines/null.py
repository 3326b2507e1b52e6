"""The null engines of a rehearsal: the planned order, meetings and peers, and no device.

Every phase takes its planned share of a second; the switch sends a token where the plan
sends weights, along the same rounds. Imports no torch.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

from plans.dataflow import Role
from plans.plan import Plan
from plans.record import StepRecord
from plans.reshard import build
from plans.transfer import Round
from plans.workload import ELEMENT_BYTES
from runtime.context import RankContext
from runtime.control import Control, OutOfStep
from runtime.events import EventLog, open_lines
from runtime.walk import Journal, walk

REHEARSED_STEPS = 2
STEP_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NullWork:
    """The phases of a plan on one rank, without engines. `scale` shortens planned seconds."""

    plan: Plan
    control: Control
    rounds: tuple[Round, ...]
    scale: float

    def phase(self, name: str, step: int) -> dict[str, float]:
        planned = {phase.name: phase.seconds for phase in self.plan.phases}
        time.sleep(planned[name] * self.scale)
        if name == "reshard":
            return {"reshard/messages": float(self._switch(step))}
        self.control.gather([name, step], what=f"tokens of {name}")
        return {}

    def _switch(self, step: int) -> int:
        """Send a token along every planned round; the number of tokens received."""
        received = 0
        for one in self.rounds:
            token = [step, *one.number]
            outgoing = {one.send.peer: token} if one.send else {}
            sources = {one.receive.peer} if one.receive else set()
            incoming = self.control.exchange(outgoing, sources, what=f"round {one.number}")
            strange = {rank: value for rank, value in incoming.items() if value != token}
            if strange:
                raise OutOfStep(f"round {one.number} of the switch received {strange}")
            received += len(incoming)
        return received


def rehearse(context: RankContext) -> None:
    """Walk a few steps of the plan with null engines and write what was walked.

    OutOfStep when the ranks did not meet in the same order.
    """
    begin = time.perf_counter()
    events = EventLog(context.run_folder if context.rank == 0 else None)
    plan, journal = context.plan, Journal(context.control)
    planned = sum(phase.seconds for phase in plan.phases)
    work = NullWork(
        plan=plan,
        control=journal,
        rounds=switch_rounds(plan, context.rank),
        scale=min(1.0, STEP_SECONDS / planned) if planned else 0.0,
    )
    steps = range(1, min(plan.job.steps, REHEARSED_STEPS) + 1)
    for record in walk(plan, journal, work, context.recorder, steps):
        _write_metrics(context, record)
    events.event(
        "rehearsed",
        ranks=journal.size,
        steps=len(steps),
        phases=[phase.name for phase in plan.phases],
        order_digest=journal.compare(),
        meetings=journal.meetings,
        seconds=round(time.perf_counter() - begin, 3),
    )
    events.close()


def switch_rounds(plan: Plan, rank: int) -> tuple[Round, ...]:
    """The rounds in which a rank exchanges weights with its peers."""
    schedule = build(
        plan.model,
        plan.placement(Role.ACTOR_TRAIN).layout,
        plan.placement(Role.ACTOR_ROLLOUT).layout,
        ELEMENT_BYTES[plan.precision],
        ranks_per_node=plan.ranks_per_node,
    )
    return schedule.row(rank).rounds


def _write_metrics(context: RankContext, record: StepRecord) -> None:
    """Rank 0 appends the line of a step to metrics.jsonl."""
    if context.rank == 0:
        with open_lines(context.run_folder / "metrics.jsonl") as file:
            file.write(json.dumps({"step": record.step, **record.metrics}) + "\n")
