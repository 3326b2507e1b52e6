"""Many copies between slices of tensors at once: one kernel on a GPU, one call on a CPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from plans.values import frozen

# What one program of the kernel moves. Shorter pieces cost more programs, longer ones leave
# fewer reads under way towards a peer, whose memory is three times as far as one's own.
TILE_BYTES = 16 * 1024
# The kernel moves 16 bytes a load where everything is aligned so, else an element of 2 bytes.
WIDE, NARROW = 16, 2


class Copies:
    """Copies of `out` slices into `into` slices, given once and made as often as one likes.

    Slices of a pair have the same shape and type, and rows without gaps; where they lie must
    not change. `lanes` says which pairs share a way (a link, the own memory): the ways are
    served side by side, not one after the other. On a GPU a table of 24 bytes a tile is kept.
    """

    def __init__(
        self, into: Sequence[Tensor], out: Sequence[Tensor], lanes: Sequence[int] = ()
    ) -> None:
        assert len(into) == len(out)
        self._into, self._out = list(into), list(out)
        self._tables: list[tuple[Tensor, int]] = []
        if self._into and self._into[0].is_cuda:
            device = self._into[0].device
            found = tiles(self._into, self._out, lanes or [0] * len(into))
            self._tables = [(part.rows.to(device), part.unit) for part in found]

    @property
    def bytes(self) -> int:
        return sum(view.nbytes for view in self._into)

    @property
    def table_bytes(self) -> int:
        """Device memory held beside the tensors."""
        return sum(table.nbytes for table, _ in self._tables)

    @torch.no_grad()
    def run(self) -> None:
        """Make the copies; on a GPU, enqueue them on the caller's stream."""
        if self._tables:
            from runtime.copy_kernel import copy_tiles

            for table, unit in self._tables:
                copy_tiles(table, unit, TILE_BYTES)
        elif self._into:
            torch._foreach_copy_(self._into, self._out)


@frozen
class Tiles:
    """Rows of (source address, destination address, count of units), and bytes of a unit."""

    rows: Tensor
    unit: int


def tiles(into: Sequence[Tensor], out: Sequence[Tensor], lanes: Sequence[int]) -> list[Tiles]:
    """The pairs cut into tiles of at most TILE_BYTES, those of all lanes in even mixture."""
    found: dict[int, list[tuple[Tensor, int]]] = {WIDE: [], NARROW: []}
    for target, source, lane in zip(into, out, lanes, strict=True):
        runs = _runs(target, source)
        unit = WIDE if bool((runs % WIDE == 0).all()) else NARROW
        found[unit].append((_cut(runs), lane))
    return [Tiles(rows=_mixed(parts, unit), unit=unit) for unit, parts in found.items() if parts]


def _runs(target: Tensor, source: Tensor) -> Tensor:
    """[n, 3] (source address, destination address, bytes) of the runs without gaps in both."""
    assert target.shape == source.shape
    if target.is_contiguous() and source.is_contiguous():
        return torch.tensor([[source.data_ptr(), target.data_ptr(), target.nbytes]])
    assert target.dim() == 2
    assert target.stride(1) == source.stride(1) == 1
    size = target.element_size()
    row = torch.arange(target.shape[0])
    return torch.stack(
        (
            source.data_ptr() + row * (source.stride(0) * size),
            target.data_ptr() + row * (target.stride(0) * size),
            torch.full_like(row, target.shape[1] * size),
        ),
        1,
    )


def _cut(runs: Tensor) -> Tensor:
    """The runs of one pair, all of one length, in pieces of at most TILE_BYTES."""
    length = int(runs[0, 2])
    starts = torch.arange(0, length, TILE_BYTES)
    counts = (length - starts).clamp(max=TILE_BYTES)
    places = runs[:, None, :2] + starts[:, None]
    pieces = torch.cat((places, counts.expand(len(runs), -1)[..., None]), -1)
    return pieces.flatten(0, 1)


def _mixed(parts: Sequence[tuple[Tensor, int]], unit: int) -> Tensor:
    """All pieces in one table: each lane in its order, the lanes spread evenly over it."""
    lanes: dict[int, list[Tensor]] = {}
    for rows, lane in parts:
        lanes.setdefault(lane, []).append(rows)
    joined = [torch.cat(rows) for rows in lanes.values()]
    progress = torch.cat([(torch.arange(len(rows)) + 0.5) / len(rows) for rows in joined])
    table = torch.cat(joined)[torch.argsort(progress, stable=True)]
    table[:, 2] //= unit
    return table.contiguous()
