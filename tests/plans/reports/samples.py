"""Estimates that the tests of reports read."""

from __future__ import annotations

import re
from dataclasses import replace

from plans.estimate import Estimate, estimate_of
from plans.hardware import read_hardware
from plans.prices import read_prices
from plans.search import search
from tests.plans.samples import job, large_job, model

PPO = {"name": "ppo", "kl": {"weight": 0.1}}


def estimated(chosen, name="toy") -> Estimate:
    hardware, *others = (read_hardware(group.hardware) for group in chosen.cluster.all_groups)
    estimate = estimate_of(search(chosen, model(name), hardware, others=tuple(others)))
    listed = read_prices()
    prices = tuple(listed.prices.get(group.hardware) for group in estimate.plan.groups)
    return replace(estimate, prices=prices, priced=listed.as_of)


def large() -> Estimate:
    return estimated(large_job(), "7b")


def small() -> Estimate:
    return estimated(job(algorithm=PPO, cluster={"hardware": "cpu", "ranks": 4}))


def chained() -> Estimate:
    return estimated(
        large_job(
            cluster={"hardware": "mi300x", "nodes": 2},
            roles={"actor_train": {"tp": 4}, "actor_rollout": {"tp": 1}},
        ),
        "7b",
    )


def masked(text: str) -> str:
    """The text without digests, which change with every byte of every plan."""
    return re.sub(r"\b(?=[0-9a-f]*[0-9])[0-9a-f]{8}\b", "00000000", text)
