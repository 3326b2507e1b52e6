"""Prompts and sequences of random tokens, and a loss, for measurements: nothing is learned."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from plans.model import ModelSpec
from runtime.batch import Request, Sequences

# No token has this number, so every response has its full length.
NEVER = -1


def random_prompts(
    model: ModelSpec, seed: int, count: int, prompt: int, response: int, samples: int = 1
) -> list[Request]:
    """`count` prompts of `prompt` tokens, each to be answered `samples` times to full length."""
    chance = random.Random(seed)
    prompts = [
        tuple(chance.randrange(model.vocab_size) for _ in range(prompt)) for _ in range(count)
    ]
    return [
        Request(
            tokens=tokens,
            max_tokens=response,
            temperature=1.0,
            seed=number * samples + sample,
            stop_token=NEVER,
        )
        for number, tokens in enumerate(prompts)
        for sample in range(samples)
    ]


def random_sequences(model: ModelSpec, seed: int, count: int, length: int) -> Sequences:
    """Sequences of `length` tokens and one more to predict, the same on every rank."""
    generator = torch.Generator().manual_seed(seed)
    return Sequences(
        tokens=torch.randint(model.vocab_size, (count, length + 1), generator=generator),
        prompt_lengths=torch.full((count,), 1),
        lengths=torch.full((count,), length + 1),
    )


def mean_loss(log_probs: Tensor, _: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Minus the mean log-probability."""
    loss = -log_probs.mean()
    return loss, {"loss": loss}
