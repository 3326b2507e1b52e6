"""What is done to rewards and their groups before anything is learned; the adaptive KL weight."""

from __future__ import annotations

import torch
from torch import Tensor

# By how much a weight may change for each `horizon` sequences (Ziegler et al. 2019, 2.2).
MOST_CHANGE = 0.2


def overlong_penalty(lengths: Tensor, *, limit: int, buffer: int, penalty: float) -> Tensor:
    """What the reward loses for a response of that many tokens, [n].

    Nothing up to limit - buffer, then linearly up to `penalty` at the limit (DAPO, Yu et al.
    2025, eq. 13).
    """
    over = (lengths - (limit - buffer)).clamp(min=0, max=buffer)
    return penalty * over.to(torch.float32) / buffer


def have_spread(rewards: Tensor, samples: int) -> Tensor:
    """Which groups of `samples` consecutive rewards are not all equal: [n] to [n / samples] bool.

    The others have no advantage, and so no gradient (DAPO, Yu et al. 2025, 3.2).
    """
    groups = rewards.view(-1, samples)
    return (groups != groups[:, :1]).any(1)


def adapted_weight(
    weight: float, divergence: float, *, target: float, sequences: int, horizon: int
) -> float:
    """The next weight of the KL term, moved towards a divergence of `target` nats a token.

    weight * (1 + clip(divergence / target - 1, -0.2, 0.2) * sequences / horizon); Ziegler et
    al. 2019, 2.2, where the horizon is 10 batches, and here a number of sequences, as in verl.
    """
    error = max(-MOST_CHANGE, min(MOST_CHANGE, divergence / target - 1))
    return weight * (1 + error * sequences / horizon)
