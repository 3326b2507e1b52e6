"""From a row of a data file to what is asked and what is right, in our form or in verl's.

Ours: {"prompt": text or chat, "answer": text}. verl's: {"data_source", "prompt": chat,
"reward_model": {"ground_truth"}, "extra_info"}; its other keys are not needed to learn.
Of a pair: {"prompt", "chosen": text, "rejected": text}.
"""

from __future__ import annotations

import json
from typing import Any

from plans.values import frozen
from runtime.tokenizer import Tokenizer

EXPECTED = 'expected an object such as {"prompt": "1+1=", "answer": "2"}'


class TooLong(ValueError):
    """A text has more tokens than the job file allows."""


@frozen
class Example:
    """One row: the prompt as the model reads it, and the answer as the reward rule does."""

    text: str
    tokens: tuple[int, ...]
    answer: str
    source: str
    extra: str
    rejected: str = ""

    def check_pair(self) -> None:
        """ValueError when there are not two answers to choose from."""
        if not self.rejected:
            raise ValueError('rejected: missing; a pair is {"prompt", "chosen", "rejected"}')
        if self.rejected == self.answer:
            raise ValueError("rejected: the same text as the chosen answer")

    def check(self, tokenizer: Tokenizer, prompt_tokens: int, answer_tokens: int | None) -> None:
        """ValueError when a text is empty, unknown or too long (TooLong)."""
        _check(self.text, self.tokens, tokenizer, "prompt", prompt_tokens)
        if answer_tokens is None:
            return
        for text in (self.answer, self.rejected) if self.rejected else (self.answer,):
            tokens = (*tokenizer.encode(text), tokenizer.end_token)
            _check(text, tokens, tokenizer, "answer", answer_tokens)


def example_of(row: str | dict[str, Any], tokenizer: Tokenizer) -> Example:
    """The example in a row, or in the JSON text of one; ValueError says what is wrong with it."""
    found = _parsed(row) if isinstance(row, str) else row
    if not isinstance(found, dict):
        raise ValueError(EXPECTED)
    asked = _value(found, "prompt")
    text = tokenizer.chat(_messages(asked)) if isinstance(asked, list) else _text("prompt", asked)
    return Example(
        text=text,
        tokens=tokenizer.encode(text),
        answer=_answer(found),
        source=str(found.get("data_source") or ""),
        extra=_json(found.get("extra_info")),
        rejected=_text("rejected", found.get("rejected", "")),
    )


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from None


def _answer(row: dict[str, Any]) -> str:
    """The answer of a row; a ground truth that is no text is given as JSON."""
    if "chosen" in row:
        return _text("chosen", row["chosen"])
    judged = row.get("reward_model")
    if "answer" not in row and isinstance(judged, dict) and "ground_truth" in judged:
        truth = judged["ground_truth"]
        return truth if isinstance(truth, str) else _json(truth)
    return _text("answer", _value(row, "answer"))


def _value(row: dict[str, Any], key: str) -> Any:
    if key not in row:
        raise ValueError(f"{key}: missing; the keys are {', '.join(map(repr, row)) or 'none'}")
    return row[key]


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(
            f"{key}: expected text in quotes, got {json.dumps(value, default=str)[:40]}"
        )
    return value


def _messages(chat: list[Any]) -> list[dict[str, str]]:
    """The turns of a chat; ValueError names the turn that is none."""
    for number, turn in enumerate(chat, start=1):
        if not (
            isinstance(turn, dict)
            and isinstance(turn.get("role"), str)
            and isinstance(turn.get("content"), str)
        ):
            raise ValueError(f"prompt: turn {number} is not like {{'role': ..., 'content': text}}")
    if not chat:
        raise ValueError("prompt: a chat without turns")
    return chat


def _json(value: Any) -> str:
    return "" if value is None else json.dumps(value, ensure_ascii=False, default=str)


def _check(text: str, tokens: tuple[int, ...], tokenizer: Tokenizer, key: str, limit: int) -> None:
    ends = int(key == "answer")
    if len(tokens) == ends:
        raise ValueError(f"{key}: no tokens in {text[:40]!r}")
    if unknown := tokenizer.unknown_text(text):
        raise ValueError(f"{key}: the tokenizer does not know {unknown!r}")
    if len(tokens) > limit:
        counted = f"{len(tokens) - ends} tokens{' and the end token' * ends}"
        name = "response" if ends else "prompt"
        raise TooLong(f"{key}: {counted}, but tokens.{name} is {limit}")
