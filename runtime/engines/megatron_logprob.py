"""Log-probabilities of tokens from logits whose vocabulary is spread over tensor-parallel ranks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """The rows of the vocabulary on this rank: `first_row` and how many of them are real tokens.

    Rows past the vocabulary are padding; they take no part in the softmax.
    """

    group: dist.ProcessGroup
    first_row: int
    real_rows: int


def vocabulary_of(group: dist.ProcessGroup, vocab_size: int, padded_vocab_size: int) -> Vocabulary:
    """This rank's share of a vocabulary that the group cuts into equal parts."""
    rows = padded_vocab_size // group.size()
    first = rows * group.rank()
    real = min(max(vocab_size - first, 0), rows)
    return Vocabulary(group=group, first_row=first, real_rows=real)


def token_log_probs(
    logits: Tensor, targets: Tensor, vocabulary: Vocabulary, temperature: float
) -> tuple[Tensor, Tensor]:
    """(log-probs of the targets, entropies), both [m, s] float32.

    Of the softmax of logits / temperature; logits: [m, s, rows on this rank], targets: [m, s].
    Entropies carry no gradient. The backward pass rebuilds the softmax from the logits, so no
    second copy is kept.
    """
    log_probs, entropy = TokenLogProbs.apply(  # type: ignore[no-untyped-call]
        logits, targets, vocabulary, temperature
    )
    return log_probs, entropy


class TokenLogProbs(torch.autograd.Function):
    """log softmax at the target, by max, sum of exponentials and target logit over the group."""

    @staticmethod
    def forward(
        context: Any, logits: Tensor, targets: Tensor, vocabulary: Vocabulary, temperature: float
    ) -> tuple[Tensor, Tensor]:
        scaled = logits[..., : vocabulary.real_rows].float() / temperature
        place, here = _place(targets, vocabulary)
        highest = _highest(scaled, vocabulary)
        shifted = scaled - highest[..., None]
        weights = shifted.exp()
        sums = torch.stack(
            (
                weights.sum(-1),
                (weights * shifted).sum(-1),
                _pick(shifted, place).masked_fill(~here, 0.0),
            )
        )
        if vocabulary.group.size() > 1:
            dist.all_reduce(sums, group=vocabulary.group)
        total, weighted, target = sums
        log_total = total.log()
        context.save_for_backward(logits, place, here, highest + log_total)
        context.real_rows, context.temperature = vocabulary.real_rows, temperature
        entropy = log_total - weighted / total
        context.mark_non_differentiable(entropy)
        return target - log_total, entropy

    @staticmethod
    def backward(context: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor, None, None, None]:
        logits, place, here, log_normalizer = context.saved_tensors
        scaled = logits[..., : context.real_rows].float() / context.temperature
        slope = gradient / context.temperature
        result = torch.zeros_like(logits)
        real = (scaled - log_normalizer[..., None]).exp_().mul_(-slope[..., None])
        if context.real_rows:
            real.scatter_add_(-1, place[..., None], (slope * here)[..., None])
        result[..., : context.real_rows] = real
        return result, None, None, None


def _place(targets: Tensor, vocabulary: Vocabulary) -> tuple[Tensor, Tensor]:
    """(row on this rank, whether it is on this rank); elsewhere the row is 0."""
    place = targets - vocabulary.first_row
    here = (place >= 0) & (place < vocabulary.real_rows)
    return place.masked_fill(~here, 0), here


def _highest(scaled: Tensor, vocabulary: Vocabulary) -> Tensor:
    if vocabulary.real_rows:
        highest = scaled.amax(-1)
    else:
        highest = scaled.new_full(scaled.shape[:-1], float("-inf"))
    if vocabulary.group.size() > 1:
        dist.all_reduce(highest, op=dist.ReduceOp.MAX, group=vocabulary.group)
    return highest


def _pick(shifted: Tensor, place: Tensor) -> Tensor:
    if shifted.shape[-1] == 0:
        return shifted.new_zeros(place.shape)
    return shifted.gather(-1, place[..., None]).squeeze(-1)
