"""AdamW whose moments are on the host."""

from copy import deepcopy

import pytest
import torch

from runtime.engines.megatron_offload import MOMENTS, HostAdamW


def parameters():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(5, 3, generator=generator), torch.randn(7, generator=generator)]


def groups_of(values):
    common = {"lr": 0.01, "betas": (0.9, 0.95), "eps": 1e-8}
    return [
        {**common, "params": [one], "weight_decay": decay}
        for one, decay in zip(values, (0.1, 0.0), strict=True)
    ]


def learn(optimizer, values, steps, seed=2):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for one in values:
            one.grad = torch.randn(one.shape, generator=generator)
        optimizer.step()


@pytest.mark.parametrize("grouped", [False, True])
def test_its_steps_are_those_of_torch(grouped):
    ours, theirs = parameters(), parameters()
    learn(HostAdamW(groups_of(ours), grouped_steps=grouped), ours, 4)
    learn(torch.optim.AdamW(groups_of(theirs)), theirs, 4)
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("grouped", [False, True])
def test_a_state_that_is_loaded_goes_on_as_the_one_that_was_saved(grouped):
    first, second = parameters(), parameters()
    one = HostAdamW(groups_of(first), grouped_steps=grouped)
    learn(one, first, 2)
    other = HostAdamW(groups_of(second), grouped_steps=grouped)
    other.load_state_dict(deepcopy(one.state_dict()))
    for mine, theirs in zip(second, first, strict=True):
        mine.copy_(theirs)
    learn(one, first, 2, seed=3)
    learn(other, second, 2, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_only_the_moments_are_kept_and_a_parameter_without_gradient_stays():
    values = parameters()
    optimizer = HostAdamW(groups_of(values), grouped_steps=True)
    before = values[1].clone()
    values[0].grad = torch.ones(5, 3)
    optimizer.step()
    assert torch.equal(values[1], before)
    assert {name for state in optimizer.state.values() for name in state} == set(MOMENTS)
    assert all(one.device.type == "cpu" for s in optimizer.state.values() for one in s.values())
