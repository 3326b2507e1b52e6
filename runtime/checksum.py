"""A number that tells whether two copies of a slice of a tensor are equal, bit for bit."""

from __future__ import annotations

import torch
from torch import Tensor

# Odd constants of 64-bit hashing, as signed (Steele et al. 2014, SplitMix64).
ROW_STRIDE = -7046029254386353131
COLUMN_STRIDE = -4658895280553007687
INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
# Widened elements held at a time: 64 MiB of int64.
CHUNK_ELEMENTS = 8 * 2**20


def checksum(values: Tensor, dim: int, start: int) -> Tensor:
    """Sum of the bit patterns of `values`, each weighted by its place, modulo 2**64.

    `start` is the place of the first row along `dim`, so equal slices of a tensor have equal
    sums wherever they are stored. Exact: the order of summation does not matter. Returns an
    int64 scalar on the device of `values`.
    """
    bits = values.view(INTEGERS[values.element_size()]).movedim(dim, 0)
    bits = bits.unsqueeze(1) if bits.dim() == 1 else bits
    rows, columns = bits.shape
    device = values.device
    column_weights = torch.arange(1, columns + 1, device=device) * COLUMN_STRIDE
    row_weights = torch.arange(start + 1, start + rows + 1, device=device) * ROW_STRIDE
    total = torch.zeros((), dtype=torch.int64, device=device)
    step = max(1, CHUNK_ELEMENTS // columns)
    for first in range(0, rows, step):
        wide = bits[first : first + step].to(torch.int64)
        total += ((wide * column_weights).sum(1) * row_weights[first : first + step]).sum()
    return total
