"""The tables of the copy kernel, carried out byte by byte in its place."""

import ctypes

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from runtime.copying import TILE_BYTES, Copies, tiles


def carry_out(into, out, lanes):
    for part in tiles(into, out, lanes):
        for source, target, count in part.rows.tolist():
            ctypes.memmove(target, source, count * part.unit)


def slices(rows, columns, dtype):
    """Pairs of slices as a switch has them: whole, of rows, of columns, and vectors."""
    generator = torch.Generator().manual_seed(rows * columns)

    def full(*shape):
        return torch.randn(*shape, generator=generator).to(dtype)

    out = [full(rows, columns), full(2 * rows, columns), full(rows, columns), full(columns)]
    into = [full(rows, columns), full(rows, columns), full(rows, 3 * columns), full(3 * columns)]
    pairs = [
        (into[0], out[0]),
        (into[1], out[1].narrow(0, rows // 2, rows)),
        (into[2].narrow(1, columns, columns), out[2]),
        (into[3].narrow(0, columns, columns), out[3]),
    ]
    return [one for one, _ in pairs], [one for _, one in pairs]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@given(rows=st.integers(1, 9), columns=st.integers(1, 300), lanes=st.lists(st.integers(0, 2)))
def test_the_tiles_of_any_slices_copy_them_and_nothing_else(dtype, rows, columns, lanes):
    into, out = slices(rows, columns, dtype)
    wanted = [view.clone() for view in out]
    around = into[2]._base.clone()
    carry_out(into, out, (lanes + [0] * len(into))[: len(into)])
    assert all(torch.equal(one, other) for one, other in zip(into, wanted, strict=True))
    around.narrow(1, columns, columns).copy_(out[2])
    assert torch.equal(into[2]._base, around)


def test_a_long_row_is_cut_and_every_piece_is_small():
    source, target = torch.randn(3, 3 * TILE_BYTES // 4 + 4), torch.zeros(3, 4 * TILE_BYTES)
    part = target.narrow(1, 8, source.shape[1])
    table = tiles([part], [source], [0])
    assert sum(int(one.rows[:, 2].max()) * one.unit for one in table) <= TILE_BYTES
    carry_out([part], [source], [0])
    assert torch.equal(part, source)


def test_lanes_are_served_side_by_side():
    far, near = torch.zeros(64 * TILE_BYTES // 4), torch.zeros(16 * TILE_BYTES // 4)
    into = [torch.zeros_like(far), torch.zeros_like(near)]
    (table,) = tiles(into, [far, near], [7, 3])
    first = far.data_ptr()
    of_far = (table.rows[:, 0] >= first) & (table.rows[:, 0] < first + far.nbytes)
    assert len(table.rows) == 80
    for quarter in of_far.split(20):
        assert int(quarter.sum()) == 16


def test_copies_hold_no_table_on_a_cpu():
    into, out = slices(4, 16, torch.float32)
    copies = Copies(into, out)
    copies.run()
    assert copies.table_bytes == 0
    assert copies.bytes == sum(view.nbytes for view in out)
    assert all(torch.equal(one, other) for one, other in zip(into, out, strict=True))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("rows", "columns"), [(5, 7), (64, 128), (333, 1000), (1024, 3584)])
def test_the_kernel_copies_slices_and_nothing_else(dtype, rows, columns):
    into, out = slices(rows, columns, dtype)
    wholes = [view if view._base is None else view._base for view in into]
    apart = [whole.cuda() for whole in wholes]
    wanted = [whole.clone() for whole in apart]
    places = [
        [
            whole.as_strided(view.shape, view.stride(), view.storage_offset())
            for whole, view in pairs
        ]
        for pairs in (zip(apart, into, strict=True), zip(wanted, into, strict=True))
    ]
    sources = [view.cuda() for view in out]
    Copies(places[0], sources, [0, 1, 0, 2]).run()
    for place, source in zip(places[1], sources, strict=True):
        place.copy_(source)
    torch.cuda.synchronize()
    assert all(torch.equal(one, other) for one, other in zip(apart, wanted, strict=True))
