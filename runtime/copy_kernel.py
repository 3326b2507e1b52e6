"""The kernel behind runtime/copying.py; imported only where there is a GPU, and so Triton."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

WIDE_BYTES = 16
WARPS = 4


def copy_tiles(table: Tensor, unit: int, tile_bytes: int) -> None:
    """Copy each row (source address, destination address, count of units) of an int64 table."""
    wide = unit == WIDE_BYTES
    block = tile_bytes // (8 if wide else unit)
    _copy[(len(table),)](table, BLOCK=block, WIDE=wide, num_warps=WARPS)


@triton.jit  # type: ignore[untyped-decorator]
def _copy(table, BLOCK: tl.constexpr, WIDE: tl.constexpr):  # type: ignore[no-untyped-def]
    entry = table + tl.program_id(0).to(tl.int64) * 3
    source, target, count = tl.load(entry), tl.load(entry + 1), tl.load(entry + 2)
    place = tl.arange(0, BLOCK)
    if WIDE:
        # Two words of 8 bytes a unit: told so, the compiler moves them as one of 16.
        here = tl.multiple_of(source.to(tl.pointer_type(tl.int64)), 16) + place
        there = tl.multiple_of(target.to(tl.pointer_type(tl.int64)), 16) + place
        inside = place < tl.multiple_of(count * 2, 2)
    else:
        here = source.to(tl.pointer_type(tl.int16)) + place
        there = target.to(tl.pointer_type(tl.int16)) + place
        inside = place < count
    tl.store(there, tl.load(here, mask=inside), mask=inside)
