"""A frozen value does what a frozen dataclass does."""

import copy
import pickle
from dataclasses import (
    FrozenInstanceError,
    asdict,
    dataclass,
    field,
    fields,
    is_dataclass,
    replace,
)
from functools import cached_property

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plans.values import frozen


@frozen
class Mesh:
    """A value."""

    tp: int
    name: str = "mesh"
    ranks: list[int] = field(default_factory=list, compare=False)


@frozen
class DeepMesh(Mesh):
    """A value with one field more."""

    pp: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    """The same as the library makes it."""

    tp: int
    name: str = "mesh"
    ranks: list[int] = field(default_factory=list, compare=False)


@frozen(kw_only=False)
class Pair:
    """By position; checked after it is made."""

    low: int
    high: int = 9

    def __post_init__(self):
        assert self.low <= self.high

    def __repr__(self):
        return f"{self.low}..{self.high}"


@frozen(slots=False)
class Square:
    """With a number that is computed once."""

    side: int

    @cached_property
    def area(self):
        return self.side**2


values = st.fixed_dictionaries(
    {"tp": st.integers(0, 2)},
    optional={"name": st.sampled_from("ab"), "ranks": st.lists(st.integers(0, 1), max_size=1)},
)


@given(values, values)
def test_it_equals_and_prints_and_copies_as_a_dataclass_does(one, other):
    mine, plain = Mesh(**one), Plain(**one)
    assert (mine == Mesh(**other)) is (plain == Plain(**other))
    assert hash(mine) == hash(Mesh(**one))
    assert mine != plain
    assert repr(mine) == repr(plain).replace("Plain", "Mesh")
    assert asdict(mine) == asdict(plain)
    assert is_dataclass(mine)
    assert [each.name for each in fields(mine)] == ["tp", "name", "ranks"]
    assert replace(mine, tp=7) == Mesh(**{**one, "tp": 7})
    for again in (copy.copy(mine), copy.deepcopy(mine), pickle.loads(pickle.dumps(mine))):
        assert again == mine
        assert again.ranks == mine.ranks


def test_a_field_is_never_changed():
    with pytest.raises(FrozenInstanceError, match=r"Mesh.*tp"):
        Mesh(tp=1).tp = 2
    with pytest.raises(FrozenInstanceError):
        del Mesh(tp=1).tp
    with pytest.raises(FrozenInstanceError):
        Mesh(tp=1).no_such_field = 2


@pytest.mark.parametrize("wrong", [{}, {"tp": 1, "dp": 2}])
def test_what_is_missing_or_unknown_is_refused(wrong):
    with pytest.raises(TypeError, match="__init__"):
        Mesh(**wrong)


def test_parameters_by_position_are_for_classes_that_say_so():
    assert Pair(1) == Pair(1, 9) != Pair(1, 2)
    with pytest.raises(TypeError):
        Mesh(1)


def test_what_a_class_defines_itself_stays():
    assert repr(Pair(1)) == "1..9"
    with pytest.raises(AssertionError):
        Pair(10)


def test_each_value_has_its_own_default_list():
    assert Mesh(tp=1).ranks is not Mesh(tp=1).ranks


def test_a_subclass_has_the_fields_of_both_and_is_another_value():
    deep = DeepMesh(tp=2, pp=4)
    assert (deep.tp, deep.name, deep.pp) == (2, "mesh", 4)
    assert deep != DeepMesh(tp=2, pp=2)
    assert deep != Mesh(tp=2)


def test_a_class_without_slots_may_cache():
    square = Square(side=3)
    assert square.area == 9
    assert square == Square(side=3)
    with pytest.raises(FrozenInstanceError):
        square.side = 4
