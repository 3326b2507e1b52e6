"""The values that move between phases: requests, completions, and the experience of one step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from plans.values import frozen


@frozen
class Request:
    """One sequence to generate; `seed` alone decides its randomness, so any rank may serve it."""

    tokens: tuple[int, ...]
    max_tokens: int
    temperature: float
    seed: int
    stop_token: int


@frozen
class Completion:
    """What the rollout engine answers: sampled tokens (stop token included) and their log-probs."""

    tokens: tuple[int, ...]
    log_probs: tuple[float, ...]


@frozen
class Sequences:
    """Prompts with responses, right-padded to one length.

    tokens: [n, s] int64 on the host; prompt_lengths and lengths (prompt + response): [n] int64.
    """

    tokens: Tensor
    prompt_lengths: Tensor
    lengths: Tensor

    def __len__(self) -> int:
        return int(self.tokens.shape[0])

    @property
    def response_mask(self) -> Tensor:
        """[n, s - 1] bool: True where position i predicts a response token (token i + 1)."""
        place = torch.arange(1, self.tokens.shape[1])
        return (place >= self.prompt_lengths[:, None]) & (place < self.lengths[:, None])

    @property
    def response_lengths(self) -> Tensor:
        """[n] int64: tokens of each response, its stop token included."""
        return self.lengths - self.prompt_lengths

    def with_room(self) -> Sequences:
        """The same with a token of padding behind each, so that its last has an output too."""
        return Sequences(
            tokens=torch.nn.functional.pad(self.tokens, (0, 1)),
            prompt_lengths=self.prompt_lengths,
            lengths=self.lengths + 1,
        )

    def rows(self, start: int, stop: int) -> Sequences:
        """The sequences start..stop, as views."""
        return Sequences(
            tokens=self.tokens[start:stop],
            prompt_lengths=self.prompt_lengths[start:stop],
            lengths=self.lengths[start:stop],
        )

    def at(self, rows: Tensor) -> Sequences:
        """The sequences at some rows ([m] int64), as wide as they are here."""
        return Sequences(
            tokens=self.tokens[rows],
            prompt_lengths=self.prompt_lengths[rows],
            lengths=self.lengths[rows],
        )

    def select(self, rows: Tensor) -> Sequences:
        """The sequences at some rows ([m] int64), cut to the longest of them."""
        chosen = self.at(rows)
        return replace(chosen, tokens=chosen.tokens[:, : int(chosen.lengths.max())])


def joined(parts: Iterable[Sequences], pad_token: int) -> Sequences:
    """Several batches one above the other, padded to the longest."""
    parts = list(parts)
    width = max(one.tokens.shape[1] for one in parts)
    pad = torch.nn.functional.pad
    return Sequences(
        tokens=torch.cat(
            [pad(one.tokens, (0, width - one.tokens.shape[1]), value=pad_token) for one in parts]
        ),
        prompt_lengths=torch.cat([one.prompt_lengths for one in parts]),
        lengths=torch.cat([one.lengths for one in parts]),
    )


@dataclass(slots=True, kw_only=True)
class Experience:
    """One step's batch; every [n, s - 1] tensor is aligned with `sequences.response_mask`.

    `baselines` [n] are the rewards of the greedy answers to the same prompts (ReMax);
    `weights_steps` [n] int64 the steps after whose updates the weights were that sampled;
    `kl_weight` is that of this step, should it adapt.
    """

    step: int
    sequences: Sequences
    rewards: Tensor
    rollout_log_probs: Tensor
    old_log_probs: Tensor | None = None
    reference_log_probs: Tensor | None = None
    values: Tensor | None = None
    advantages: Tensor | None = None
    returns: Tensor | None = None
    baselines: Tensor | None = None
    weights_steps: Tensor | None = None
    kl_weight: float = 0.0

    def sampled_by(self, weights_step: int) -> None:
        """Note that all rows are samples of the weights after that step's update."""
        self.weights_steps = torch.full((len(self.sequences),), weights_step)
