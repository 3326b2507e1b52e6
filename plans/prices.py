"""What an hour of one device costs: the newest of the dated files in `plans/prices/`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

from pydantic import TypeAdapter

from plans.source import read_yaml

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


def read_prices(path: Path | None = None) -> PriceList:
    """The prices of a file, by default of the newest one; SpecError when it is not readable."""
    chosen = path or max(FOLDER.glob("*.yaml"))
    return TypeAdapter(PriceList).validate_python(read_yaml(chosen).data)
