"""The mathematics of policy optimization: advantages, losses, KL estimators and token weights.

Per-token tensors are [n, s - 1] and aligned with `Sequences.response_mask`; what stands outside
the mask is ignored on the way in and zero on the way out. Losses come per token and unreduced:
a token's weight is computed from the whole optimizer batch before it is cut into pieces, so the
total loss is a plain sum and does not depend on micro-batches or data-parallel ranks.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

KLEstimator = Literal["k1", "k2", "k3"]
# TRL and verl use this size; it only matters for groups whose rewards are almost equal.
STD_EPSILON = 1e-6
# exp(20) is past any useful importance ratio and far from the float32 overflow at exp(88).
LOG_RATIO_LIMIT = 20.0


def group_advantages(rewards: Tensor, groups: Tensor, *, normalize_by_std: bool) -> Tensor:
    """Each reward minus the mean of its group, over the group's standard deviation if asked.

    rewards: [n]; groups: [n] int64 >= 0, equal for samples of one prompt; returns [n]. The
    deviation is the unbiased one; a group of equal rewards gets zeros. GRPO, Shao et al. 2024,
    4.1.2; without the division Dr. GRPO, Liu et al. 2025, 3.2.
    """
    counts = torch.bincount(groups)
    centred = rewards - (torch.bincount(groups, rewards) / counts)[groups].to(rewards.dtype)
    if not normalize_by_std:
        return centred
    variances = torch.bincount(groups, centred.square()) / (counts - 1).clamp(min=1)
    return centred / (variances.sqrt()[groups].to(rewards.dtype) + STD_EPSILON)


def spread(scores: Tensor, mask: Tensor) -> Tensor:
    """A score of a sequence on each of its response tokens: [n] and [n, s - 1] to [n, s - 1]."""
    return scores[:, None] * mask.to(scores.dtype)


def on_last_token(scores: Tensor, mask: Tensor) -> Tensor:
    """A score of a sequence on its last response token, zeros elsewhere: [n] to [n, s - 1].

    A sequence without response tokens gets no reward.
    """
    later = mask.long().flip(1).cumsum(1).flip(1)
    return spread(scores, mask & (later == 1))


def generalized_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, gae_lambda: float
) -> tuple[Tensor, Tensor]:
    """Advantages and returns (the critic's targets), both [n, s - 1], zero outside the mask.

    GAE, Schulman et al. 2016, eq. 11 and 16: delta_t = r_t + gamma V_{t+1} - V_t and
    A_t = delta_t + gamma lambda A_{t+1}; the value after the last response token is 0.
    """
    inside = mask.to(values.dtype)
    rewards, values = rewards * inside, values * inside
    advantages = torch.zeros_like(values)
    next_value = next_advantage = torch.zeros_like(values[:, 0])
    for place in reversed(range(values.shape[1])):
        delta = rewards[:, place] + gamma * next_value - values[:, place]
        # Right padding: past the end both terms are still zero, so a mask is enough.
        next_advantage = (delta + gamma * gae_lambda * next_advantage) * inside[:, place]
        next_value = values[:, place]
        advantages[:, place] = next_advantage
    return advantages, advantages + values


def whiten(values: Tensor, mask: Tensor) -> Tensor:
    """Masked values shifted and scaled to mean 0 and standard deviation 1, zero outside the mask.

    PPO's usual treatment of advantages over the whole batch (Huang et al. 2022, detail 7).
    Fewer than two tokens are only shifted.
    """
    inside = mask.to(values.dtype)
    count = inside.sum().clamp(min=1)
    centred = (values - (values * inside).sum() / count) * inside
    if int(mask.sum()) < 2:
        return centred
    std = (centred.square().sum() / (count - 1)).sqrt()
    return centred / (std + STD_EPSILON)


def policy_loss(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, *, clip: float
) -> tuple[Tensor, Tensor]:
    """The clipped surrogate per token, to be minimised, and where the clip is active (bool).

    PPO, Schulman et al. 2017, eq. 7: -min(r A, clip(r, 1 - eps, 1 + eps) A).
    """
    ratio = (log_probs - old_log_probs).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()
    plain = -advantages * ratio
    bounded = -advantages * ratio.clamp(1 - clip, 1 + clip)
    return torch.maximum(plain, bounded), bounded > plain


def value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, *, clip: float
) -> tuple[Tensor, Tensor]:
    """Half the squared error per token, with the step of the value clipped, and where it is (bool).

    The larger of the plain and the clipped error counts (Huang et al. 2022, detail 9).
    """
    bounded = old_values + (values - old_values).clamp(-clip, clip)
    plain_error, bounded_error = (values - returns).square(), (bounded - returns).square()
    return 0.5 * torch.maximum(plain_error, bounded_error), bounded_error > plain_error


def kl_divergence(log_probs: Tensor, reference_log_probs: Tensor, estimator: KLEstimator) -> Tensor:
    """An estimate of KL(policy, reference) per token, from tokens that the policy sampled.

    Schulman 2020 ("Approximating KL Divergence"), with x = log reference - log policy:
    k1 = -x, k2 = x^2 / 2, k3 = exp(x) - 1 - x. As a reward take any of them. As a loss the
    gradient of k1 has mean zero, k2's is that of KL(policy, reference), and k3's that of
    KL(reference, policy), all on-policy.
    """
    x = (reference_log_probs - log_probs).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    if estimator == "k1":
        return -x
    return 0.5 * x.square() if estimator == "k2" else x.exp() - 1 - x


def entropy_estimate(log_probs: Tensor) -> Tensor:
    """The entropy of the policy per sampled token, -log p: unbiased as a number, to be reported."""
    return -log_probs.detach()


def entropy_loss(log_probs: Tensor) -> Tensor:
    """A term per sampled token whose expected gradient is that of minus the entropy.

    grad H = -E[log p grad log p], and log p grad log p is the gradient of (log p)^2 / 2.
    (Minimising log p itself would have an expected gradient of zero.) On-policy tokens only.
    """
    return 0.5 * log_probs.square()


def token_mean_weights(mask: Tensor, token_count: int) -> Tensor:
    """Weights that make a sum the mean over all `token_count` response tokens of the batch.

    mask: [m, s - 1] of any piece of the batch. DAPO, Yu et al. 2025, eq. 8.
    """
    return mask.to(torch.float32) / max(token_count, 1)


def sequence_mean_weights(mask: Tensor, sequence_count: int) -> Tensor:
    """Weights that make a sum the mean over sequences of each one's mean over its tokens.

    mask: [m, s - 1] of any piece of the batch. GRPO, Shao et al. 2024, eq. 3 (1/G sum 1/|o_i|).
    """
    inside = mask.to(torch.float32)
    return inside / (inside.sum(1, keepdim=True).clamp(min=1) * max(sequence_count, 1))
