"""Seconds of a piece of work that all ranks do together: the slowest rank counts."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
import torch.distributed as dist

from plans.values import frozen

MILLI = 1000.0


@frozen
class Timing:
    """Seconds over several repeats, each that of the slowest rank."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def milliseconds(self, name: str = "ms") -> dict[str, float]:
        """Median, least and most, by `name`, `name`_min and `name`_max."""
        values = {
            name: self.median,
            f"{name}_min": min(self.seconds),
            f"{name}_max": max(self.seconds),
        }
        return {key: round(MILLI * value, 4) for key, value in values.items()}


def timed(work: Callable[[], object], repeats: int, warm_ups: int = 2) -> Timing:
    """Wall seconds of `work`, from all ranks ready to the last one's device idle."""
    found = []
    for turn in range(warm_ups + repeats):
        synchronize()
        if dist.is_initialized():
            dist.barrier()
            synchronize()
        start = time.perf_counter()
        work()
        synchronize()
        if turn >= warm_ups:
            found.append(time.perf_counter() - start)
    return Timing(seconds=slowest(found))


def slowest(seconds: list[float]) -> tuple[float, ...]:
    """Of each repeat the largest over the ranks."""
    table = torch.tensor(seconds, dtype=torch.float64)
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(table, op=dist.ReduceOp.MAX)
    return tuple(table.tolist())


def synchronize() -> None:
    """Wait for this rank's device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
