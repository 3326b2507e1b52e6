"""What an algorithm learns from an experience: advantages, and the loss of each trained role."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from plans.spec import JobSpec
from runtime import algorithms
from runtime.batch import Experience
from runtime.engines import LossFunction
from runtime.sharing import Rows

# (experience, job, rows of the whole optimizer batch, rows of this rank's shard) -> loss
Objective = Callable[[Experience, JobSpec, Rows, Rows], LossFunction]


def batch_metrics(experience: Experience) -> dict[str, float]:
    """What can be said of a batch before anything is learned from it."""
    sequences = experience.sequences
    lengths = (sequences.lengths - sequences.prompt_lengths).float()
    return {
        "reward/mean": float(experience.rewards.mean()),
        "reward/std": float(experience.rewards.std(correction=0)),
        "response_length/mean": float(lengths.mean()),
        "response_length/max": float(lengths.max()),
        "perf/total_tokens": float(sequences.lengths.sum()),
    }


def estimate_advantages(experience: Experience, job: JobSpec) -> dict[str, float]:
    """Fill in the advantages (and the critic's returns); every rank computes the same."""
    mask = experience.sequences.response_mask
    penalty = _kl_penalty(experience, job)
    if job.needs_critic:
        assert experience.values is not None, "the values phase comes before"
        rewards = algorithms.on_last_token(experience.rewards, mask) - penalty
        raw, experience.returns = algorithms.generalized_advantages(
            rewards,
            experience.values,
            mask,
            gamma=job.algorithm.gamma,
            gae_lambda=job.algorithm.gae_lambda,
        )
        experience.advantages = algorithms.whiten(raw, mask)
    else:
        groups = torch.arange(len(experience.sequences)) // job.batch.samples
        scores = algorithms.group_advantages(
            experience.rewards - penalty.sum(1),
            groups,
            normalize_by_std=job.algorithm.normalize_by_std,
        )
        experience.advantages = algorithms.spread(scores, mask)
    return {}


def actor_objective(experience: Experience, job: JobSpec, whole: Rows, shard: Rows) -> LossFunction:
    """The clipped policy loss, plus the pull to the reference and the entropy where asked for.

    The mean is over the response tokens of the whole optimizer batch (DAPO, Yu et al. 2025,
    eq. 8), so no token counts more for the micro-batch it falls into.
    """
    mask = experience.sequences.response_mask
    tokens = int(mask[whole.slice].sum())
    advantages = _of(experience.advantages, shard)
    sampled = _of(experience.rollout_log_probs, shard)
    kl = job.algorithm.kl

    def loss(log_probs: Tensor, rows: slice) -> tuple[Tensor, dict[str, Tensor]]:
        weights = algorithms.token_mean_weights(mask[shard.slice][rows], tokens).to(log_probs)
        detached = log_probs.detach()
        old = _piece(experience.old_log_probs, shard, rows, detached)
        per_token, clipped = algorithms.policy_loss(
            log_probs, old, advantages[rows].to(log_probs), clip=job.algorithm.clip
        )
        gap = (detached - sampled[rows].to(detached)).abs()
        report = {
            "pg_loss": per_token,
            "clip_frac": clipped.to(log_probs.dtype),
            "entropy": algorithms.entropy_estimate(detached),
            "rollout_gap": gap,
        }
        if experience.reference_log_probs is not None:
            reference = _piece(experience.reference_log_probs, shard, rows, detached)
            report["kl"] = algorithms.kl_divergence(log_probs, reference, kl.estimator)
            if kl.place == "loss":
                per_token = per_token + kl.weight * report["kl"]
        if job.algorithm.entropy_weight:
            per_token = per_token + job.algorithm.entropy_weight * algorithms.entropy_loss(
                log_probs
            )
        return _reduce(per_token, report, weights)

    return loss


def critic_objective(
    experience: Experience, job: JobSpec, whole: Rows, shard: Rows
) -> LossFunction:
    """Half the clipped squared error of the values, a mean over response tokens."""
    mask = experience.sequences.response_mask
    tokens = int(mask[whole.slice].sum())
    old, returns = _of(experience.values, shard), _of(experience.returns, shard)

    def loss(values: Tensor, rows: slice) -> tuple[Tensor, dict[str, Tensor]]:
        weights = algorithms.token_mean_weights(mask[shard.slice][rows], tokens).to(values)
        per_token, clipped = algorithms.value_loss(
            values, old[rows].to(values), returns[rows].to(values), clip=job.algorithm.value_clip
        )
        report = {"vf_loss": per_token, "clip_frac": clipped.to(values.dtype), "value": values}
        return _reduce(per_token, report, weights)

    return loss


def supervised_objective(mask: Tensor, token_count: int) -> LossFunction:
    """Cross-entropy of the given responses: mask [n, s - 1] of this rank's shard."""

    def loss(log_probs: Tensor, rows: slice) -> tuple[Tensor, dict[str, Tensor]]:
        weights = algorithms.token_mean_weights(mask[rows], token_count).to(log_probs)
        return _reduce(-log_probs, {"loss": -log_probs}, weights)

    return loss


def _kl_penalty(experience: Experience, job: JobSpec) -> Tensor:
    """What the reward loses per token for leaving the reference policy; else zeros."""
    mask = experience.sequences.response_mask
    kl = job.algorithm.kl
    if kl.place != "reward" or experience.reference_log_probs is None:
        return torch.zeros(mask.shape)
    assert experience.old_log_probs is not None, "the old_log_prob phase comes before"
    estimate = algorithms.kl_divergence(
        experience.old_log_probs, experience.reference_log_probs, kl.estimator
    )
    return kl.weight * estimate * mask


def _of(values: Tensor | None, rows: Rows) -> Tensor:
    assert values is not None, "an earlier phase fills this in"
    return values[rows.slice]


def _piece(values: Tensor | None, shard: Rows, rows: slice, otherwise: Tensor) -> Tensor:
    """A micro-batch of a whole-batch tensor, like `otherwise`, which stands in for None."""
    return otherwise if values is None else values[shard.slice][rows].to(otherwise)


def _reduce(
    per_token: Tensor, report: dict[str, Tensor], weights: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sums, masked first: outside may stand infinity, and inf x 0 is not 0."""
    inside = weights > 0
    total = torch.where(inside, per_token, 0.0) * weights
    sums = {
        name: (torch.where(inside, value.detach(), 0.0) * weights).sum()
        for name, value in report.items()
    }
    return total.sum(), sums
