"""Ranks of a plan that do something else than its run: measure, evaluate, replay."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from launcher.folder import open_run
from launcher.local import Listener, start
from plans.plan import Plan
from plans.source import UserError
from runtime.files import write_file


def do_task(
    plan: Plan,
    folder: Path,
    base: Path,
    program: Sequence[str],
    *,
    named: str,
    asked: tuple[str, Mapping[str, Any]],
    listener: Listener = lambda _name, _record: None,
) -> None:
    """Start `program` on the ranks of a plan, in a run folder of its own, and follow it.

    `asked` is a file of that folder that the ranks read, and what stands in it; paths of the
    plan's job start at `base`. UserError when the ranks did not come to the end; it says where
    their logs are.
    """
    attempt = open_run(folder, plan)
    file, request = asked
    write_file(folder / file, json.dumps(request).encode())
    outcome = start(plan, folder, base, attempt, program=program, listener=listener)
    if outcome.code:
        logs = folder / f"attempt-{attempt}" / "logs"
        raise UserError(f"the {named} ended with code {outcome.code}: {outcome.text}\n{logs}")
