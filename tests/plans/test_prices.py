"""The dated price file."""

import pytest

from plans.hardware import known_hardware
from plans.prices import read_prices
from plans.source import SpecError


def test_prices_are_dated_ordered_sourced_and_of_known_hardware():
    found = read_prices()
    assert found.as_of == "2026-05-18"
    assert set(found.prices) <= set(known_hardware())
    for price in found.prices.values():
        assert 0 < price.low <= price.typical <= price.high
        assert price.source


def test_a_machine_that_nobody_hires_out_has_no_price():
    assert "mi250x-gcd" not in read_prices().prices


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prices: {}", "file: a price list has as_of and prices"),
        ("as_of: 2026-05-18\nprices: 3", "file: a price list has as_of and prices"),
        ("as_of: 1\nprices:\n  a10g: 3", "list.yaml:3: prices.a10g: a price has low, typical"),
        (
            "as_of: 1\nprices:\n  a10g: {low: 3, typical: 2, high: 4, source: x}",
            "list.yaml:3: prices.a10g: low, typical and high do not rise",
        ),
        (
            "as_of: 1\nprices:\n  a10g: {low: x, typical: 2, high: 4, source: x}",
            "list.yaml:3: prices.a10g: low, typical and high are dollars an hour",
        ),
    ],
)
def test_a_wrong_price_list_is_told_with_its_line(text, said, tmp_path):
    (tmp_path / "list.yaml").write_text(text)
    with pytest.raises(SpecError, match=said.replace(".", r"\.")):
        read_prices(tmp_path / "list.yaml")
