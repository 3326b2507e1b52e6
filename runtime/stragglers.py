"""Ranks that are slower than the others, step after step: told with phase and ratio, never ended.

A throttled or half-broken device costs a whole job its pace without failing. The first steps
are left out (compilation, caches), and a single slow step is nothing: data differ in length.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from plans.record import StepRecord
from plans.values import frozen
from runtime.events import EventLog
from runtime.heartbeat import read_beats

# A rank is told when it took so many times the median of all ranks, and so much longer, in most
# of the steps looked at. Healthy ranks of one job differ by a few percent; batches by length more.
RATIO = 1.3
SECONDS = 0.05
STEPS = 10
MOST = 0.8
WARM_UP_STEPS = 1
WHOLE = "step"


@frozen
class Straggler:
    """A rank, the phase in which it is slow, and its median share of the others' median."""

    rank: int
    phase: str
    ratio: float


@dataclass(slots=True)
class Stragglers:
    """The ratios of the last steps by (rank, phase)."""

    _ratios: defaultdict[tuple[int, str], deque[float]] = field(
        default_factory=lambda: defaultdict(lambda: deque(maxlen=STEPS))
    )
    _seen: int = 0

    def look(self, record: StepRecord) -> list[Straggler]:
        """Take in a step; who has been slow for most of the last steps, every STEPS steps."""
        self._seen += 1
        if self._seen <= WARM_UP_STEPS or len(record.ranks) < 2:
            return []
        phases = {phase for seconds in record.ranks for phase in seconds} - {WHOLE}
        for phase in phases:
            walked = {r: one[phase] for r, one in enumerate(record.ranks) if phase in one}
            usual = median(walked.values())
            for rank, seconds in walked.items():
                late = seconds - usual > SECONDS
                ratio = seconds / max(usual, SECONDS) if late else 1.0
                self._ratios[rank, phase].append(ratio)
        if (self._seen - WARM_UP_STEPS) % STEPS:
            return []
        found = [
            Straggler(rank=rank, phase=phase, ratio=round(median(ratios), 3))
            for (rank, phase), ratios in self._ratios.items()
            if sum(ratio >= RATIO for ratio in ratios) >= MOST * STEPS
        ]
        return sorted(found, key=lambda one: (-one.ratio, one.rank, one.phase))


def watched(
    records: Iterable[StepRecord], events: EventLog, heartbeats: Path
) -> Iterator[StepRecord]:
    """The same records; stragglers become events, and a line in the log of rank 0."""
    looking = Stragglers()
    for record in records:
        for one in looking.look(record):
            hosts = {beat.rank: beat.host for beat in read_beats(heartbeats)}
            host = hosts.get(one.rank, "?")
            events.problem(
                "straggler",
                f"rank {one.rank} ({host}) takes {one.ratio:.3g} times the others' seconds "
                f"in {one.phase}, up to step {record.step}",
                rank=one.rank,
                host=host,
                phase=one.phase,
                ratio=one.ratio,
                step=record.step,
            )
        yield record
