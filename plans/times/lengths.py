"""Response lengths as (tokens, requests) in rising order: what generation time is made of."""

from __future__ import annotations

from itertools import pairwise
from math import exp
from statistics import NormalDist

SIGMA = 0.6
EDGES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.995, 1.0)
ROUNDS = 40
# Assumption: a limit is chosen so that it cuts so large a share of the responses.
CUT = 0.05

Lengths = tuple[tuple[float, float], ...]


def lognormal_lengths(requests: float, mean: float, cap: float, sigma: float = SIGMA) -> Lengths:
    """A log-normal distribution cut at `cap` whose mean is `mean`, in bins finer at the tail.

    Assumption: the logarithm of a response's length is normal with that sigma, and a response
    that reaches the cap ends there. The last bin stands for the longest of all requests.
    """
    if cap <= mean * 1.001:
        return ((mean, requests),)
    places = [(low + high) / 2 for low, high in pairwise(EDGES)]
    places[-1] = 1 - 0.5 / max(200.0, requests)
    shares = [high - low for low, high in pairwise(EDGES)]
    scores = [NormalDist().inv_cdf(place) for place in places]
    low, high = 0.0, 4.0 * cap
    for _ in range(ROUNDS):
        middle = (low + high) / 2
        found = _mean(middle, shares, scores, cap, sigma)
        low, high = (middle, high) if found < mean else (low, middle)
    return tuple(
        (min(cap, low * exp(sigma * score)), share * requests)
        for share, score in zip(shares, scores, strict=True)
    )


def usual_share(cut: float = CUT, sigma: float = SIGMA) -> float:
    """The mean of a log-normal length as a share of a limit that cuts the longest `cut` of them.

    E[min(X, 1)] of X with median exp(-z sigma), z the score of 1 - cut: 0.43 where 5 % are cut.
    """
    normal = NormalDist()
    score = normal.inv_cdf(1 - cut)
    return exp(sigma * sigma / 2 - score * sigma) * normal.cdf(score - sigma) + cut


def _mean(
    median: float, shares: list[float], scores: list[float], cap: float, sigma: float
) -> float:
    pairs = zip(shares, scores, strict=True)
    return sum(share * min(cap, median * exp(sigma * score)) for share, score in pairs)
