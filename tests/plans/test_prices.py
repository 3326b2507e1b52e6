"""The dated price file."""

from datetime import date

from plans.hardware import known_hardware
from plans.prices import read_prices


def test_prices_are_dated_ordered_sourced_and_of_known_hardware():
    found = read_prices()
    assert found.as_of == date(2026, 5, 18)
    assert set(found.prices) <= set(known_hardware())
    for price in found.prices.values():
        assert 0 < price.low <= price.typical <= price.high
        assert price.source


def test_a_machine_that_nobody_hires_out_has_no_price():
    assert "mi250x-gcd" not in read_prices().prices
