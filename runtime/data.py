"""The data of a run: JSON-lines rows as prompts, and which of them a step works on.

The order is a pure function of (seed, stream, epoch): nothing is kept between steps, so a
resumed run and every rank of a run see the same prompts without asking anybody.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch

from runtime.batch import Prompt, Sequences
from runtime.mistakes import DataMistake, MissingInput
from runtime.tokenizer import Tokenizer

KEYS = ("prompt", "answer")
SHOWN_MISTAKES = 8
FEISTEL_ROUNDS = 4


def read_prompts(
    path: Path, tokenizer: Tokenizer, *, prompt_tokens: int, answer_tokens: int | None = None
) -> tuple[Prompt, ...]:
    """The rows of a JSON-lines file, tokenized; blank lines are skipped, other keys ignored.

    answer_tokens: the longest answer with its end token, where answers are learned from
    (None: answers only go to the reward rule). Raises MissingInput, or DataMistake with all
    mistakes of the file, each with its line (the first few written out).
    """
    prompts: list[Prompt] = []
    mistakes: list[str] = []
    for line, text in _lines(path):
        try:
            row = _row(text)
            tokens = _fitting(row["prompt"], tokenizer, "prompt", prompt_tokens)
            if answer_tokens is not None:
                _fitting(row["answer"], tokenizer, "answer", answer_tokens, end_tokens=1)
        except ValueError as error:
            mistakes.append(f"{path}:{line}: {error}")
            continue
        prompts.append(
            Prompt(index=len(prompts), text=row["prompt"], tokens=tokens, answer=row["answer"])
        )
    if mistakes:
        raise DataMistake(_summary(mistakes))
    if not prompts:
        raise DataMistake(f'{path}: no rows; each line holds {{"prompt": ..., "answer": ...}}')
    return tuple(prompts)


def prompts_of_step(
    prompts: Sequence[Prompt], *, step: int, count: int, seed: int, stream: str = "rl"
) -> tuple[Prompt, ...]:
    """The `count` prompts of a step (0 or more): the next ones of an endless row of epochs.

    Each epoch holds every prompt once, in an order of its own; `stream` separates two uses of
    one file (the warm-up and the RL steps). Costs O(count), whatever the size of the file.
    """
    chosen = []
    for position in range(step * count, (step + 1) * count):
        epoch, place = divmod(position, len(prompts))
        chosen.append(prompts[_shuffled(place, len(prompts), f"{seed}/{stream}/{epoch}")])
    return tuple(chosen)


def request_seed(seed: int, step: int, prompt_index: int, sample: int) -> int:
    """The sampling seed of one sequence, in [0, 2**31), whatever the rank or layout."""
    return _hash(f"{seed}/{step}/{prompt_index}/{sample}") >> 33


def sequences_of(
    prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], pad_token: int
) -> Sequences:
    """Prompts joined with their responses, right-padded to the longest."""
    joined = [[*left, *right] for left, right in zip(prompts, responses, strict=True)]
    lengths = torch.tensor([len(row) for row in joined], dtype=torch.int64)
    tokens = torch.full((len(joined), int(lengths.max())), pad_token, dtype=torch.int64)
    for place, row in enumerate(joined):
        tokens[place, : len(row)] = torch.tensor(row, dtype=torch.int64)
    prompt_lengths = torch.tensor([len(row) for row in prompts], dtype=torch.int64)
    return Sequences(tokens=tokens, prompt_lengths=prompt_lengths, lengths=lengths)


def answer_sequences(prompts: Sequence[Prompt], tokenizer: Tokenizer) -> Sequences:
    """Prompts with their answers and the end token as responses: a supervised batch."""
    answers = [(*tokenizer.encode(row.answer), tokenizer.end_token) for row in prompts]
    return sequences_of([row.tokens for row in prompts], answers, tokenizer.pad_token)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, text in enumerate(file, start=1):
                if text.strip():
                    yield number, text
    except UnicodeDecodeError as error:
        raise DataMistake(f"{path}: not UTF-8: {error.reason}") from None
    except OSError as error:
        raise MissingInput(f"{path}: {(error.strerror or 'cannot be read').lower()}") from None


def _row(text: str) -> dict[str, str]:
    """The prompt and answer of a line; ValueError says what is wrong with it."""
    try:
        row: Any = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from None
    if not isinstance(row, dict):
        raise ValueError('expected an object such as {"prompt": "1+1=", "answer": "2"}')
    for key in KEYS:
        if key not in row:
            raise ValueError(f"{key}: missing; the keys are {', '.join(map(repr, row)) or 'none'}")
        if not isinstance(row[key], str):
            raise ValueError(f"{key}: expected text in quotes, got {json.dumps(row[key])[:40]}")
    return {key: row[key] for key in KEYS}


def _fitting(
    text: str, tokenizer: Tokenizer, key: str, limit: int, end_tokens: int = 0
) -> tuple[int, ...]:
    """The tokens of a text that must be whole, known and short enough; ValueError otherwise."""
    tokens = tokenizer.encode(text)
    name = "prompt" if key == "prompt" else "response"
    if not tokens:
        raise ValueError(f"{key}: no tokens in {text[:40]!r}")
    if unknown := tokenizer.unknown_text(text):
        raise ValueError(f"{key}: the tokenizer does not know {unknown!r}")
    if len(tokens) + end_tokens > limit:
        counted = f"{len(tokens)} tokens{' and the end token' if end_tokens else ''}"
        raise ValueError(f"{key}: {counted}, but tokens.{name} is {limit}")
    return tokens


def _summary(mistakes: list[str]) -> str:
    hidden = len(mistakes) - SHOWN_MISTAKES
    more = [f"and {hidden} more lines"] if hidden > 0 else []
    return "\n".join(mistakes[:SHOWN_MISTAKES] + more)


def _shuffled(place: int, size: int, key: str) -> int:
    """Where a keyed permutation of range(size) sends `place`.

    A Feistel network over the next even power of two, walked until it lands inside
    (Black and Rogaway 2002, "Ciphers with arbitrary finite domains"): no table, and the same
    order on every version of Python, which random.shuffle does not promise.
    """
    half = max((size - 1).bit_length() + 1, 2) // 2
    while True:
        left, right = place >> half, place & ((1 << half) - 1)
        for turn in range(FEISTEL_ROUNDS):
            mixed = _hash(f"{key}/{turn}/{right}") & ((1 << half) - 1)
            left, right = right, left ^ mixed
        place = left << half | right
        if place < size:
            return place


def _hash(text: str) -> int:
    """64 bits of a text."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest())
