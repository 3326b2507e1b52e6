"""What an hour of one device costs: the newest of the dated files in `plans/prices/`."""

from __future__ import annotations

from pathlib import Path

from plans.source import Document, Location, SpecError, read_yaml
from plans.values import frozen

FOLDER = Path(__file__).parent / "prices"
ENDS = ("low", "typical", "high")


@frozen
class Price:
    """US dollars an hour of one device: neoclouds at the low end, hyperscalers at the high."""

    low: float
    typical: float
    high: float
    source: str


@frozen
class PriceList:
    """Prices by hardware name as of a day ('2026-05-18'); not every hardware is for hire."""

    as_of: str
    prices: dict[str, Price]


def read_prices(path: Path | None = None) -> PriceList:
    """The prices of a file, by default of the newest one; SpecError when it is not readable."""
    document = read_yaml(path or max(FOLDER.glob("*.yaml")))
    day, rows = document.data.get("as_of"), document.data.get("prices")
    if set(document.data) != {"as_of", "prices"} or not isinstance(rows, dict):
        raise SpecError(document.complain((), "a price list has as_of and prices, no more"))
    prices = {name: _price(document, name, row) for name, row in rows.items()}
    return PriceList(as_of=str(day), prices=prices)


def flat_price(dollars: float) -> Price:
    """The same price at both ends."""
    return Price(low=dollars, typical=dollars, high=dollars, source="as given")


def _price(document: Document, name: str, row: object) -> Price:
    at: Location = ("prices", name)
    if not isinstance(row, dict) or set(row) != {*ENDS, "source"}:
        raise SpecError(document.complain(at, "a price has low, typical, high and source"))
    if not all(isinstance(row[end], int | float) and row[end] >= 0 for end in ENDS):
        raise SpecError(document.complain(at, "low, typical and high are dollars an hour"))
    if not row["low"] <= row["typical"] <= row["high"]:
        raise SpecError(document.complain(at, "low, typical and high do not rise"))
    return Price(**row)
