"""What a link between two ranks carries while both send."""

from __future__ import annotations

import torch
import torch.distributed as dist

from plans.units import GIB, MIB
from runtime.context import RankContext
from runtime.measure.clock import timed

# Long enough that the start of a message does not count.
PAIR_BYTES = {"cuda": GIB, "cpu": 4 * MIB}


def pair_bytes_per_second(context: RankContext, repeats: int) -> float | None:
    """Bytes a second each way between neighbours 2k and 2k + 1; None for an odd number of ranks."""
    size, rank = dist.get_world_size(), dist.get_rank()
    if size % 2:
        return None
    count = PAIR_BYTES[context.device.partition(":")[0]]
    mine = torch.ones(count, dtype=torch.uint8, device=context.device)
    theirs = torch.empty_like(mine)

    def swap() -> None:
        ways = ((dist.isend, mine), (dist.irecv, theirs))
        for work in dist.batch_isend_irecv([dist.P2POp(way, one, rank ^ 1) for way, one in ways]):
            work.wait()

    return count / timed(swap, repeats).median
