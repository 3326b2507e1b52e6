"""The tokenizer of a model folder: text to tokens and back, from its files alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plans.values import frozen
from runtime.mistakes import DataMistake, MissingInput


@frozen
class Tokenizer:
    """A Hugging Face fast tokenizer and the special tokens a run needs."""

    fast: Any
    end_token: int
    pad_token: int

    def encode(self, text: str) -> tuple[int, ...]:
        """The tokens of a text, without special tokens around it."""
        return tuple(self.fast.encode(text, add_special_tokens=False))

    def chat(self, messages: list[dict[str, str]]) -> str:
        """The text of a chat up to where the model answers, by the folder's own template.

        ValueError when the folder has no chat template, or the template refuses the chat.
        """
        if not self.fast.chat_template:
            raise ValueError("prompt: a chat, but the model's tokenizer has no chat template")
        try:
            text = self.fast.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        # The template is code of the folder, run in a sandbox; it may raise anything.
        except Exception as error:
            raise ValueError(f"prompt: the chat template refuses it: {error}") from None
        return str(text)

    def decode(self, response: Sequence[int]) -> str:
        """The text of a response without its end token.

        Other special tokens stay visible: a response that holds one is not the clean text.
        """
        tokens = list(response)
        if tokens and tokens[-1] == self.end_token:
            tokens.pop()
        return str(self.fast.decode(tokens, clean_up_tokenization_spaces=False))

    def unknown_text(self, text: str) -> str:
        """The first piece of a text that the vocabulary cannot express, or ''."""
        unknown = self.fast.unk_token_id
        if unknown is None:
            return ""
        encoded = self.fast(text, add_special_tokens=False, return_offsets_mapping=True)
        for token, (start, stop) in zip(
            encoded["input_ids"], encoded["offset_mapping"], strict=True
        ):
            if token == unknown:
                return text[start:stop]
        return ""


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer in a model folder; nothing is downloaded and no code of the folder runs.

    Raises MissingInput when the folder has no tokenizer.json, DataMistake when it cannot be
    read or names no end token. Without a pad token the end token pads. The class that
    AutoTokenizer picks by the model's family may replace what tokenizer.json says (a vocabulary
    of characters under a Qwen2 config becomes byte-level); this one takes the file as it is.
    """
    from transformers import PreTrainedTokenizerFast

    if not (folder / "tokenizer.json").is_file():
        raise MissingInput(f"{folder}: no tokenizer.json; a model folder holds its tokenizer")
    try:
        fast = PreTrainedTokenizerFast.from_pretrained(str(folder), local_files_only=True)
    # The Rust reader raises bare Exception for a malformed tokenizer.json.
    except Exception as error:
        raise DataMistake(f"{folder}: the tokenizer cannot be read: {error}") from error
    if fast.eos_token_id is None:
        raise DataMistake(f"{folder}/tokenizer_config.json: eos_token: missing; name the end token")
    pad = fast.eos_token_id if fast.pad_token_id is None else fast.pad_token_id
    return Tokenizer(fast=fast, end_token=int(fast.eos_token_id), pad_token=int(pad))
