"""One rank of a measurement: as runtime/rank.py, with a measurement in the place of the run.

    python -m runtime.measure.rank [--base DIR] [--attempt N] RUN_FOLDER

What is measured stands in RUN_FOLDER/measure.json; rank 0 writes RUN_FOLDER/measured.jsonl,
one object a line.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

from runtime import rank
from runtime.context import RankContext
from runtime.files import write_file

Rows = Iterator[dict[str, Any]]


def measure(context: RankContext) -> bool:
    """Do what measure.json asks; all ranks call this."""
    from runtime.devices import take_device
    from runtime.groups import join
    from runtime.measure.micro import measure as micro
    from runtime.measure.reshard import measure as reshard
    from runtime.measure.rollout import measure as rollout
    from runtime.measure.step import measure as step
    from runtime.measure.train import measure as train

    kinds: dict[str, Callable[[RankContext, dict[str, Any]], Rows]] = {
        "micro": micro,
        "reshard": reshard,
        "rollout": rollout,
        "step": step,
        "train": train,
    }
    asked = json.loads((context.run_folder / "measure.json").read_text())
    with context.outside("start"):
        take_device(context)
        groups = join(context)
    lines: list[str] = []
    for row in kinds[asked["bench"]](context, asked):
        lines.append(json.dumps({"bench": asked["bench"], **row}))
        if context.rank == 0:
            write_file(context.run_folder / "measured.jsonl", "\n".join([*lines, ""]).encode())
    groups.close()
    return True


if __name__ == "__main__":
    sys.exit(rank.main(task=measure))
