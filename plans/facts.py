"""The numbers of a `config.json`, or an error that names the file and the key."""

from __future__ import annotations

from typing import Any

from plans.source import SpecError
from plans.values import frozen


@frozen(kw_only=False)
class Facts:
    """What stands in a config.json; `where` names the file in errors."""

    where: str
    data: dict[str, Any]

    @property
    def rope(self) -> Facts:
        """Where the rotary embedding is described; transformers has moved it twice."""
        inner = self.data.get("rope_parameters") or self.data.get("rope_scaling")
        return Facts(self.where, {**self.data, **inner} if isinstance(inner, dict) else self.data)

    def count(self, key: str, otherwise: int | None = None) -> int:
        """A positive whole number; `otherwise` when the key is missing or null."""
        value = self._get(key, otherwise)
        if type(value) is not int or value < 1:
            raise self.wrong(key, "a positive whole number")
        return value

    def tally(self, key: str, otherwise: int = 0) -> int:
        """A whole number that may be 0; `otherwise` when the key is missing or null."""
        value = self._get(key, otherwise)
        if type(value) is not int or value < 0:
            raise self.wrong(key, "a whole number, 0 or more")
        return value

    def rate(self, key: str, otherwise: float) -> float:
        """A positive number; `otherwise` when the key is missing or null."""
        value = self._get(key, otherwise)
        if type(value) not in (int, float) or value <= 0:
            raise self.wrong(key, "a positive number")
        return float(value)

    def tallies(self, key: str) -> tuple[int, ...]:
        """A list of whole numbers; empty when the key is missing or null."""
        value = self._get(key, ())
        if not isinstance(value, list | tuple) or any(type(one) is not int for one in value):
            raise self.wrong(key, "a list of whole numbers")
        return tuple(value)

    def wrong(self, key: str, expected: str) -> SpecError:
        return SpecError(f"{self.where}: {key}: expected {expected}, got {self.data.get(key)!r}")

    def _get(self, key: str, otherwise: Any) -> Any:
        value = self.data.get(key)
        if value is None and otherwise is None:
            raise SpecError(f"{self.where}: {key}: missing")
        return otherwise if value is None else value
