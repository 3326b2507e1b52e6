"""Which sequences go where: balanced shards and packs of a token budget."""

from hypothesis import given
from hypothesis import strategies as st

from runtime.packing import packs, rounds, shards

LENGTHS = st.lists(st.integers(1, 200), min_size=8, max_size=40)
BUDGET = 256


def total(lengths, rows):
    return sum(lengths[row] for row in rows)


@given(LENGTHS, st.integers(1, 8))
def test_every_row_is_in_one_shard_and_none_is_empty(lengths, parts):
    found = shards(lengths, parts)
    assert sorted(row for rows in found for row in rows) == list(range(len(lengths)))
    assert all(rows == sorted(rows) and rows for rows in found)


@given(LENGTHS, st.integers(1, 8))
def test_no_shard_is_more_than_its_longest_sequence_above_another(lengths, parts):
    loads = [total(lengths, rows) for rows in shards(lengths, parts)]
    assert max(loads) - min(loads) <= max(lengths)


@given(LENGTHS)
def test_packs_keep_to_the_budget(lengths):
    found = packs(lengths, BUDGET)
    assert sorted(row for rows in found for row in rows) == list(range(len(lengths)))
    assert max(total(lengths, rows) for rows in found) <= BUDGET
    assert len(found) >= -(-sum(lengths) // BUDGET)


@given(st.lists(st.integers(1, 100), min_size=4, max_size=20), st.integers(1, 4))
def test_pairs_stay_together(halves, parts):
    lengths = [length for length in halves for _ in range(2)]
    for rows in (*shards(lengths, parts, 2), *packs(lengths, BUDGET, 2)):
        assert all(first % 2 == 0 for first in rows[::2])
        assert [row + 1 for row in rows[::2]] == rows[1::2]


@given(LENGTHS, st.integers(1, 4))
def test_all_shares_are_cut_into_as_many_packs(lengths, parts):
    shares = shards(lengths, parts)
    count = rounds(lengths, shares, BUDGET)
    cut = [packs([lengths[row] for row in rows], BUDGET, least=count) for rows in shares]
    assert {len(found) for found in cut} == {count}


def test_more_packs_than_sequences_leave_some_empty():
    assert packs([5, 7], BUDGET, least=4) == [[1], [0], [], []]


def test_a_sequence_over_the_budget_is_alone():
    assert packs([300, 10, 20], BUDGET) == [[0], [2], [1]]
