"""The command line of a rank."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from plans.checks import CHECK_NAMES
from plans.values import frozen


@frozen
class Options:
    """What a rank is told when it is started."""

    run_folder: Path
    base: Path
    attempt: int | None
    rehearse: bool
    resume: bool
    until: int | None
    ends: float = math.inf
    skip: frozenset[str] = frozenset()


def options_of(arguments: Sequence[str] | None) -> Options:
    """The command line, read; the program ends with a message when it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m runtime.rank", description="One rank of a run."
    )
    parser.add_argument("run", type=Path, help="the run's folder, or its plan.json")
    parser.add_argument("--base", type=Path, default=Path(), help="where the job's paths start")
    parser.add_argument("--attempt", type=int, help="number of the attempt (default: the next one)")
    parser.add_argument("--rehearse", action="store_true", help="walk the plan without engines")
    parser.add_argument("--resume", action="store_true", help="go on from the latest checkpoint")
    parser.add_argument("--until", type=int, help="stop after this step, with a checkpoint")
    parser.add_argument(
        "--ends", type=float, default=math.inf, help="when the queue ends the job, unix seconds"
    )
    parser.add_argument(
        "--skip-check",
        action="append",
        default=[],
        choices=CHECK_NAMES,
        help="leave a check of the preflight out",
    )
    given = parser.parse_args(arguments)
    folder = given.run.parent if given.run.name == "plan.json" else given.run
    return Options(
        run_folder=folder.resolve(),
        base=given.base.resolve(),
        attempt=given.attempt,
        rehearse=given.rehearse,
        resume=given.resume,
        until=given.until,
        ends=given.ends,
        skip=frozenset(given.skip_check),
    )
