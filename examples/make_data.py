"""Writes the addition task beside this file: its data and the tokenizer of the tiny model.

Run `python examples/make_data.py`; the same bytes come out everywhere. No row of the
evaluation file stands in the training file, in either order of the summands.
"""

from __future__ import annotations

import json
from pathlib import Path

HERE = Path(__file__).parent
LARGEST = (99, 9)
EVAL_SHARE = 8
SPECIAL = ("<pad>", "<eos>", "<unk>")
CHARACTERS = "0123456789+-*= "


def problems() -> list[tuple[int, int]]:
    """Sums of a two-digit (or smaller) and a one-digit number, in both orders, without repeats."""
    pairs = [(a, b) for a in range(LARGEST[0] + 1) for b in range(LARGEST[1] + 1)]
    return sorted({*pairs, *((b, a) for a, b in pairs)})


def held_out(a: int, b: int) -> bool:
    """Whether a problem is for evaluation; equal for a+b and b+a, and spread over all sizes."""
    low, high = sorted((a, b))
    return (low * 7919 + high * 104729) % 1009 % EVAL_SHARE == 0


def write_rows(path: Path, pairs: list[tuple[int, int]]) -> None:
    rows = [json.dumps({"prompt": f"{a}+{b}=", "answer": str(a + b)}) for a, b in pairs]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


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
    pairs = problems()
    write_rows(HERE / "data" / "addition-train.jsonl", [p for p in pairs if not held_out(*p)])
    write_rows(HERE / "data" / "addition-eval.jsonl", [p for p in pairs if held_out(*p)])
    write_tokenizer(HERE / "tiny-qwen2")


if __name__ == "__main__":
    main()
