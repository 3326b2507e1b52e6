"""What a run folder holds, read for a page about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from plans.reports.run_page import RunHistory


def read_history(folder: Path) -> RunHistory:
    """The run in a folder; UserError when it holds no plan.

    What the run has not written yet is empty; a line cut short by a crash is left out.
    """
    from plans.plan import read_plan
    from runtime.metrics import METRICS, RANKS, SAMPLES, read_metrics

    ranks: dict[str, Any] = {"step": 0, "ranks": []}
    if (folder / RANKS).exists():
        ranks = json.loads((folder / RANKS).read_text(encoding="utf-8"))
    return RunHistory(
        plan=read_plan(folder / "plan.json"),
        records=read_metrics(folder / METRICS) if (folder / METRICS).exists() else [],
        events=event_rows(folder),
        samples=_rows(folder / SAMPLES),
        ranks=ranks["ranks"],
        ranks_step=ranks["step"],
    )


def event_rows(folder: Path) -> list[dict[str, Any]]:
    """What happened in the run of a folder, oldest first."""
    from runtime.events import EVENTS

    return _rows(folder / EVENTS)


def _rows(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return [row for row in rows if isinstance(row, dict)]
