"""Rows that one rank holds, made known to all: the experience travels this way, never by MPI."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from plans.values import frozen


@frozen(kw_only=False)
class Rows:
    """A contiguous run of the batch's rows."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def slice(self) -> slice:
        return slice(self.start, self.stop)

    @property
    def indices(self) -> Tensor:
        """[n] int64."""
        return torch.arange(self.start, self.stop)


def part(count: int, index: int, parts: int) -> Rows:
    """The rows of shard `index` of `parts`; their sizes differ by one at most."""
    return Rows(count * index // parts, count * (index + 1) // parts)


def share(
    local: Tensor | None,
    rows: Tensor,
    shape: tuple[int, ...],
    like: Tensor,
    group: dist.ProcessGroup | None = None,
) -> Tensor:
    """The whole [rows, ...] tensor on every rank of the group, on the host.

    `rows` [m] int64 are those of `local`. Each row is given by exactly one rank (`local` is None
    on the others). A sum of one value and zeros is exact in every number format, so nothing is
    rounded. `like` tells the number format, and the device that the collective wants its
    tensors on.
    """
    whole = torch.zeros(shape, dtype=like.dtype, device=like.device)
    if local is not None:
        whole[rows.to(like.device)] = local.to(like.device, like.dtype)
    if dist.get_world_size(group) > 1:
        dist.all_reduce(whole, group=group)
    return whole.cpu()
