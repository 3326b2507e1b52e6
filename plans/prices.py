"""What an hour of one device costs: the newest of the dated files in `plans/prices/`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from plans.source import SpecError, read_yaml

FOLDER = Path(__file__).parent / "prices"


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """US dollars an hour of one device: neoclouds at the low end, hyperscalers at the high."""

    low: float
    typical: float
    high: float
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceList:
    """Prices by hardware name as of a day; not every hardware is for hire."""

    as_of: date
    prices: dict[str, Price]


def price_of(hardware: str, path: Path | None = None) -> tuple[Price | None, str]:
    """The price of a device, if it is for hire, and the day of the list it stands in."""
    found = read_prices(path)
    return found.prices.get(hardware), str(found.as_of)


def flat_price(dollars: float) -> Price:
    """The same price at both ends."""
    return Price(low=dollars, typical=dollars, high=dollars, source="as given")


def read_prices(path: Path | None = None) -> PriceList:
    """The prices of a file, by default of the newest one; SpecError when it is not readable."""
    chosen = path or max(FOLDER.glob("*.yaml"))
    try:
        return TypeAdapter(PriceList).validate_python(read_yaml(chosen).data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise SpecError(f"{chosen}: {where}: {first['msg'].lower()}") from None
