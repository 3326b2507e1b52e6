"""One rank of `rlplan replay`: as runtime/rank.py, learning from a run's recorded experience.

    python -m runtime.replaying [--base DIR] [--attempt N] FOLDER

What is asked stands in FOLDER/replay.json; rank 0 writes FOLDER/replayed.json. No rollout
engine is started.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from plans.dataflow import Role
from plans.values import frozen
from runtime import rank
from runtime.context import RankContext
from runtime.files import write_json

ASKED = "replay.json"
REPLAYED = "replayed.json"


@frozen
class Asked:
    """Which steps of which run. `start` None: from the weights that the job starts with.

    `start` and `end` are the checkpoints before the first step and after the last one, where
    the run still has them; `warm` is the folder of its warm-up, if it had one.
    """

    run: str
    first: int
    last: int
    start: str | None
    end: str | None
    warm: str | None


def replay(context: RankContext) -> bool:
    """Do what replay.json asks; all ranks call this."""
    import torch

    from runtime.assembly import assemble
    from runtime.devices import take_device
    from runtime.groups import join
    from runtime.learner import Learner
    from runtime.replay import ReplayWork
    from runtime.run import seat_of

    asked = Asked(**json.loads((context.run_folder / ASKED).read_text()))
    plan = context.plan
    with context.outside("start"):
        take_device(context)
        groups = join(context)
        groups.enter_pool(plan)
        engines = assemble(plan, context.base, seat_of(context), groups.world)
        device = torch.device(context.device)
        work = ReplayWork(
            plan=plan,
            learner=Learner(plan=plan, engines=engines, device=device, group=groups.world),
            kl_weight=plan.job.algorithm.kl_weight,
            folder=Path(asked.run) / "experience",
        )
    _stand_at_the_start(context, work, asked)
    steps = _walked(context, work, asked)
    weights = _weights(context, work, asked)
    if context.rank == 0:
        write_json(context.run_folder / REPLAYED, {"steps": steps, "weights": weights})
    groups.close()
    return True


def _stand_at_the_start(context: RankContext, work: Any, asked: Asked) -> None:
    """Give the engines what they held before the first step."""
    from runtime.checkpoint import STATE
    from runtime.policy import warm_weights

    engines = work.learner.engines
    with context.outside("checkpoint"):
        if asked.start:
            folder = Path(asked.start)
            for role in sorted(engines.trained):
                engines.trained[role].load(folder / role)
            state = json.loads((folder / STATE).read_text())["state"]
            work.kl_weight = state["work"]["kl_weight"]
        if asked.warm and Role.REFERENCE in engines.scored:
            model = context.base / context.plan.job.model.path
            weights = warm_weights(context.plan, Path(asked.warm), model)
            engines.scored[Role.REFERENCE].fill(weights)


def _walked(context: RankContext, work: Any, asked: Asked) -> list[dict[str, Any]]:
    """How far everything is from what was recorded, step by step."""
    from runtime.metrics import METRICS, read_metrics
    from runtime.replay import metric_differences
    from runtime.walk import walk

    recorded = {one.step: one.metrics for one in read_metrics(Path(asked.run) / METRICS)}
    steps = range(asked.first, asked.last + 1)
    found = []
    for record in walk(context.plan, context.control, work, context.recorder, steps):
        values = [*work.differences(), *metric_differences(record, recorded[record.step])]
        found.append({"step": record.step, "values": values})
    return found


def _weights(context: RankContext, work: Any, asked: Asked) -> list[dict[str, Any]]:
    """For each role that learns, the parameter that is farthest from the run's checkpoint."""
    from runtime.replay import weight_differences

    if not asked.end:
        return []
    trained, found = work.learner.engines.trained, []
    with context.outside("checkpoint"):
        for role in sorted(trained):
            for one in weight_differences(trained[role], Path(asked.end) / role):
                found.append({"role": str(role), **one})
        everyones = context.control.gather(found, what="weights")
    flat = [one for rows in everyones for one in rows]
    return [_farthest([one for one in flat if one["role"] == role]) for role in _roles(flat)]


def _roles(rows: list[dict[str, Any]]) -> list[str]:
    return sorted({one["role"] for one in rows})


def _farthest(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The row with the largest difference; one that is no number comes first."""
    worst = max(rows, key=lambda one: (one["difference"] is None, one["difference"] or 0.0))
    return {**worst, "parameters": len(rows)}


if __name__ == "__main__":
    sys.exit(rank.main(task=replay))
