"""metrics.prom: the newest step in the text format of Prometheus' node exporter.

A file and no port: the exporter's textfile collector reads it, or any scraper of files.
"""

from __future__ import annotations

import math
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plans.record import StepRecord
from runtime.files import FILE_MODE

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Gauge

FILE = "metrics.prom"
# Scrapers come every 15 s; steps of a toy take milliseconds.
LEAST_SECONDS = 1.0
# Families with one label: (beginning of our name, name there, label, what it says)
FAMILIES = (
    ("plan/timing_s/", "rlplan_planned_seconds", "phase", "Planned seconds of a phase."),
    ("timing_s/", "rlplan_phase_seconds", "phase", "Seconds of a phase, the slowest rank's."),
)
OTHERS = "A metric of the newest step; docs/glossary.md says what it means."


class PrometheusFile:
    """The newest step of a run as gauges with the label `run`; rewritten whole, by rename."""

    def __init__(self, run_folder: Path) -> None:
        from prometheus_client import CollectorRegistry

        self._path = run_folder / FILE
        self._run = run_folder.name
        self._registry: CollectorRegistry = CollectorRegistry()
        self._gauges: dict[str, Gauge] = {}
        self._newest: StepRecord | None = None
        self._written = -math.inf

    def step(self, record: StepRecord) -> None:
        """Take the numbers of a step; the file follows at once, or within a second."""
        self._newest = record
        if time.monotonic() - self._written >= LEAST_SECONDS:
            self._write(record)

    def close(self) -> None:
        """Put the last step into the file."""
        if self._newest:
            self._write(self._newest)

    def _write(self, record: StepRecord) -> None:
        from prometheus_client import write_to_textfile

        self._set("rlplan_step", "Steps that are done.", record.step)
        for name, value in record.metrics.items():
            number = value if math.isfinite(value) else math.nan
            for beginning, family, label, text in FAMILIES:
                if name.startswith(beginning):
                    self._set(family, text, number, **{label: name.removeprefix(beginning)})
                    break
            else:
                self._set(gauge_name(name), OTHERS, number)
        write_to_textfile(str(self._path), self._registry)
        self._path.chmod(FILE_MODE)
        self._newest, self._written = None, time.monotonic()

    def _set(self, name: str, text: str, value: float, **labels: Any) -> None:
        from prometheus_client import Gauge

        gauge = self._gauges.get(name)
        if gauge is None:
            gauge = Gauge(name, text, ["run", *labels], registry=self._registry)
            self._gauges[name] = gauge
        gauge.labels(run=self._run, **labels).set(value)


def gauge_name(name: str) -> str:
    """'rlplan_actor_pg_loss' for 'actor/pg_loss'."""
    return "rlplan_" + re.sub(r"[^a-zA-Z0-9]+", "_", name).strip("_").lower()
