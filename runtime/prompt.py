"""Prompt: one row of the data, as it goes to the model and to the rule that judges."""

from __future__ import annotations

from plans.values import frozen


@frozen
class Prompt:
    """One row of the data set, tokenized. `index` is its row; `answer` goes to the reward rule.

    Of a pair `answer` is the chosen one, and `rejected` the other.

    `source` names the data set a row is from, `extra` is the JSON of what else the row says;
    both are empty where the file has neither.
    """

    index: int
    text: str
    tokens: tuple[int, ...]
    answer: str
    source: str = ""
    extra: str = ""
    rejected: str = ""
