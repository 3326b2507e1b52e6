"""Writes the addition task beside this file: its data and the tokenizer of the tiny model.

The task is to add one- and two-digit numbers whose units carry. The demonstrations forget the
carry six times out of ten, and a model that imitates them does so too; the training rows hold
only the sums, against which answers are checked.

Run `python examples/make_data.py`; the same bytes come out everywhere. No row of the
evaluation file stands in another file, in either order of the summands.
"""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path

HERE = Path(__file__).parent
LARGEST = (99, 9)
EVAL_SHARE = 7
DEMONSTRATIONS = 5
FORGOTTEN_PERCENT = 60
SPECIAL = ("<pad>", "<eos>", "<unk>")
CHARACTERS = "0123456789+-*= "


def problems() -> list[tuple[int, int]]:
    """Sums of a number up to 99 and one up to 9 that carry, in both orders, without repeats."""
    pairs = [(a, b) for a in range(LARGEST[0] + 1) for b in range(LARGEST[1] + 1)]
    carrying = [(a, b) for a, b in pairs if a % 10 + b % 10 >= 10]
    return sorted({*carrying, *((b, a) for a, b in carrying)})


def chance(*what: object) -> int:
    """A number that looks random and is the same everywhere."""
    return int.from_bytes(blake2b(repr(what).encode(), digest_size=8).digest())


def held_out(a: int, b: int) -> bool:
    """Whether a problem is for evaluation; equal for a+b and b+a."""
    return chance("held out", min(a, b), max(a, b)) % EVAL_SHARE == 0


def demonstrations(a: int, b: int) -> list[int]:
    """What the demonstrator answers to a + b, several times."""
    forgets = [
        chance("forgets", a, b, turn) % 100 < FORGOTTEN_PERCENT for turn in range(DEMONSTRATIONS)
    ]
    return [a + b - 10 * forgot for forgot in forgets]


def write_rows(name: str, rows: list[tuple[int, int, int]]) -> None:
    """A file of rows (a, b, answer)."""
    lines = [json.dumps({"prompt": f"{a}+{b}=", "answer": str(answer)}) for a, b, answer in rows]
    path = HERE / "data" / f"addition-{name}.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_pairs(problems: list[tuple[int, int]]) -> None:
    """Pairs of answers: the sum, and a sum with the carry forgotten, made twice, or miscounted.

    With only smaller numbers rejected, a policy learns to answer larger ones.
    """
    lines = [
        json.dumps({"prompt": f"{a}+{b}=", "chosen": str(a + b), "rejected": str(a + b + off)})
        for a, b in problems
        for off in (-10, 10, -1, 1)
    ]
    path = HERE / "data" / "addition-pairs.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_tokenizer(folder: Path) -> None:
    """One token a character, in the format of the `tokenizers` library."""
    words = [*SPECIAL, *CHARACTERS]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [{"id": i, "content": word, **flags, "special": True} for i, word in enumerate(SPECIAL)]
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"String": ""},
            "behavior": "Isolated",
            "invert": False,
        },
        "post_processor": None,
        "decoder": {"type": "Fuse"},
        "model": {
            "type": "WordLevel",
            "vocab": {word: place for place, word in enumerate(words)},
            "unk_token": "<unk>",
        },
    }
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<pad>",
        "eos_token": "<eos>",
        "unk_token": "<unk>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 512,
    }
    for name, value in (("tokenizer.json", tokenizer), ("tokenizer_config.json", settings)):
        (folder / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    learned = [(a, b) for a, b in problems() if not held_out(a, b)]
    unseen = [(a, b) for a, b in problems() if held_out(a, b)]
    write_rows("train", [(a, b, a + b) for a, b in learned])
    write_rows("eval", [(a, b, a + b) for a, b in unseen])
    shown = [(a, b, answer) for a, b in learned for answer in demonstrations(a, b)]
    write_rows("demonstrations", shown)
    write_pairs(learned)
    write_tokenizer(HERE / "tiny-qwen2")


if __name__ == "__main__":
    main()
