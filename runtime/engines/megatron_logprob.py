"""Log-probabilities of tokens from logits whose vocabulary is spread over tensor-parallel ranks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from plans.values import frozen

CHUNK_ELEMENTS = 2**24


@frozen
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
    second copy is kept; float32 copies are made a run of rows at a time.
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
        place, here = _place(targets, vocabulary)
        highest = _highest(logits, vocabulary) / temperature
        columns = (_real(logits, vocabulary), highest.flatten(), place.flatten())
        parts = [
            _sums(rows, top, spot, temperature) for rows, top, spot in _chunks(logits, columns)
        ]
        sums = torch.cat(parts, -1).view(3, *targets.shape)
        sums[2].masked_fill_(~here, 0.0)
        if vocabulary.group.size() > 1:
            dist.all_reduce(sums, group=vocabulary.group)
        total, weighted, target = sums
        log_total = total.log()
        context.save_for_backward(logits, place, here, highest + log_total)
        context.vocabulary, context.temperature = vocabulary, temperature
        entropy = log_total - weighted / total
        context.mark_non_differentiable(entropy)
        return target - log_total, entropy

    @staticmethod
    def backward(context: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor, None, None, None]:
        logits, place, here, log_normalizer = context.saved_tensors
        slope = gradient / context.temperature
        result = torch.zeros_like(logits)
        columns = (
            _real(logits, context.vocabulary),
            _real(result, context.vocabulary),
            log_normalizer.flatten(),
            slope.flatten(),
            (slope * here).flatten(),
            place.flatten(),
        )
        for rows, target, normalizer, each, at_target, spot in _chunks(logits, columns):
            softmax = (rows.float() / context.temperature).sub_(normalizer[:, None]).exp_()
            slopes = softmax.mul_(-each[:, None])
            if slopes.shape[-1]:
                slopes.scatter_add_(-1, spot[:, None], at_target[:, None])
            target.copy_(slopes)
        return result, None, None, None


def _real(logits: Tensor, vocabulary: Vocabulary) -> Tensor:
    """The logits of real tokens, as a view of [rows, tokens]."""
    return logits.flatten(0, 1)[:, : vocabulary.real_rows]


def _chunks(logits: Tensor, columns: tuple[Tensor, ...]) -> Iterator[tuple[Tensor, ...]]:
    """The columns a run of rows at a time, so that float32 copies of logits stay small."""
    rows = max(1, CHUNK_ELEMENTS // logits.shape[-1])
    return zip(*(torch.split(column, rows) for column in columns), strict=True)


def _sums(logits: Tensor, highest: Tensor, place: Tensor, temperature: float) -> Tensor:
    """[3, rows]: sum of exponentials, the same weighted by the exponent, exponent of the target."""
    shifted = (logits.float() / temperature).sub_(highest[:, None])
    if shifted.shape[-1]:
        target = shifted.gather(-1, place[:, None]).squeeze(-1)
    else:
        target = torch.zeros_like(highest)
    weights = shifted.exp()
    return torch.stack((weights.sum(-1), weights.mul_(shifted).sum(-1), target))


def _place(targets: Tensor, vocabulary: Vocabulary) -> tuple[Tensor, Tensor]:
    """(row on this rank, whether it is on this rank); elsewhere the row is 0."""
    place = targets - vocabulary.first_row
    here = (place >= 0) & (place < vocabulary.real_rows)
    return place.masked_fill(~here, 0), here


def _highest(logits: Tensor, vocabulary: Vocabulary) -> Tensor:
    """The largest logit of each position over the group, in float32."""
    if vocabulary.real_rows:
        highest = logits[..., : vocabulary.real_rows].amax(-1).float()
    else:
        highest = logits.new_full(logits.shape[:-1], float("-inf"), dtype=torch.float32)
    if vocabulary.group.size() > 1:
        dist.all_reduce(highest, op=dist.ReduceOp.MAX, group=vocabulary.group)
    return highest
