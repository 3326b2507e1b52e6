"""Each number is worked out by hand from the formula its function names in the docstring."""

import math

import pytest
import torch

from runtime.algorithms import (
    entropy_estimate,
    entropy_loss,
    generalized_advantages,
    group_advantages,
    kl_divergence,
    on_last_token,
    policy_loss,
    sequence_mean_weights,
    spread,
    token_mean_weights,
    value_loss,
    whiten,
)


def close(found: torch.Tensor, wanted: list, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(found, torch.tensor(wanted), rtol=0, atol=tolerance)


def test_a_reward_is_compared_with_the_mean_of_its_own_prompt():
    rewards = torch.tensor([1.0, 10.0, 0.0, 20.0, 0.0, 0.0])
    groups = torch.tensor([0, 7, 0, 7, 0, 0])
    found = group_advantages(rewards, groups, normalize_by_std=False)
    close(found, [0.75, -5.0, -0.25, 5.0, -0.25, -0.25])


def test_the_group_deviation_is_the_unbiased_one():
    # 1, 0, 0, 0: mean 1/4, variance (9/16 + 3/16) / 3 = 1/4, deviation 1/2.
    rewards = torch.tensor([1.0, 0.0, 0.0, 0.0])
    found = group_advantages(rewards, torch.zeros(4, dtype=torch.int64), normalize_by_std=True)
    close(found, [1.5, -0.5, -0.5, -0.5])


@pytest.mark.parametrize("reward", [0.0, 1.0, -3.5])
def test_a_group_of_equal_rewards_teaches_nothing(reward):
    rewards = torch.full((4,), reward)
    found = group_advantages(rewards, torch.zeros(4, dtype=torch.int64), normalize_by_std=True)
    close(found, [0.0, 0.0, 0.0, 0.0])


def test_a_group_of_one_gets_no_advantage_instead_of_a_division_by_zero():
    found = group_advantages(torch.tensor([5.0]), torch.tensor([0]), normalize_by_std=True)
    close(found, [0.0])


def test_a_sequence_score_stands_on_each_token_or_on_the_last_one():
    mask = torch.tensor([[False, True, True, False], [True, True, True, True], [False] * 4])
    scores = torch.tensor([2.0, 3.0, 4.0])
    close(spread(scores, mask), [[0.0, 2, 2, 0], [3, 3, 3, 3], [0, 0, 0, 0]])
    close(on_last_token(scores, mask), [[0.0, 0, 2, 0], [0, 0, 0, 3], [0, 0, 0, 0]])


def test_gae_of_three_tokens_by_hand():
    # gamma 0.9, lambda 0.5, so the trace decays by 0.45.
    # delta_2 = 1 - 0.6 = 0.4; delta_1 = 0.9*0.6 - 0.4 = 0.14; delta_0 = 0.9*0.4 - 0.5 = -0.14
    # A_2 = 0.4; A_1 = 0.14 + 0.45*0.4 = 0.32; A_0 = -0.14 + 0.45*0.32 = 0.004
    mask = torch.tensor([[True, True, True]])
    rewards, values = torch.tensor([[0.0, 0, 1]]), torch.tensor([[0.5, 0.4, 0.6]])
    advantages, returns = generalized_advantages(rewards, values, mask, gamma=0.9, gae_lambda=0.5)
    close(advantages, [[0.004, 0.32, 0.4]])
    close(returns, [[0.504, 0.72, 1.0]])


def test_gae_does_not_see_the_prompt_or_the_padding():
    mask = torch.tensor([[False, True, True, False]])
    advantages, returns = generalized_advantages(
        torch.tensor([[9.0, 0, 1, 9]]),
        torch.tensor([[9.0, 0.5, 0.25, 9]]),
        mask,
        gamma=1.0,
        gae_lambda=1.0,
    )
    close(advantages, [[0.0, 0.5, 0.75, 0.0]])
    close(returns, [[0.0, 1.0, 1.0, 0.0]])


def test_with_lambda_one_the_return_is_the_discounted_reward_whatever_the_values():
    mask = torch.ones(1, 4, dtype=torch.bool)
    rewards, values = torch.tensor([[0.0, 0, 0, 8]]), torch.tensor([[0.3, -2.0, 5.0, 1.0]])
    _, returns = generalized_advantages(rewards, values, mask, gamma=0.5, gae_lambda=1.0)
    close(returns, [[1.0, 2.0, 4.0, 8.0]])


def test_whitening_counts_only_what_is_inside_the_mask():
    # 1, 2, 3: mean 2, unbiased deviation 1.
    mask = torch.tensor([[True, True, False], [True, False, False]])
    found = whiten(torch.tensor([[1.0, 2.0, 100.0], [3.0, 100.0, 100.0]]), mask)
    close(found, [[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])


def test_whitening_one_token_or_none_stays_finite():
    values = torch.tensor([[4.0, 2.0]])
    close(whiten(values, torch.tensor([[True, False]])), [[0.0, 0.0]])
    close(whiten(values, torch.tensor([[False, False]])), [[0.0, 0.0]])


def test_the_policy_loss_takes_the_pessimistic_side_of_the_clip():
    # ratios 1.5, 0.5, 1.5, 0.5, 1.1 with clip 0.2
    ratios = torch.tensor([1.5, 0.5, 1.5, 0.5, 1.1])
    advantages = torch.tensor([1.0, 1.0, -1.0, -1.0, 2.0])
    losses, clipped = policy_loss(ratios.log(), torch.zeros(5), advantages, clip=0.2)
    close(losses, [-1.2, -0.5, 1.5, 0.8, -2.2])
    assert clipped.tolist() == [True, False, False, True, False]


def test_a_clipped_token_has_no_gradient_and_a_fresh_one_that_of_its_advantage():
    log_probs = torch.tensor([math.log(1.5), 0.0]).requires_grad_()
    losses, _ = policy_loss(log_probs, torch.zeros(2), torch.tensor([1.0, 3.0]), clip=0.2)
    losses.sum().backward()
    close(log_probs.grad, [0.0, -3.0])


def test_a_far_policy_gives_a_finite_loss():
    losses, _ = policy_loss(
        torch.tensor([0.0]), torch.tensor([-500.0]), torch.tensor([-1.0]), clip=0.2
    )
    assert torch.isfinite(losses).all()


def test_the_value_loss_counts_the_larger_of_plain_and_clipped_error():
    # old 0, clip 0.2. Value 1 -> clipped 0.2. Return 1: 0 or 0.64; return 0: 1 or 0.04.
    values, old = torch.tensor([1.0, 1.0, 0.1]), torch.zeros(3)
    losses, clipped = value_loss(values, old, torch.tensor([1.0, 0.0, 1.1]), clip=0.2)
    close(losses, [0.32, 0.5, 0.5])
    assert clipped.tolist() == [True, False, False]


def test_the_three_kl_estimators_by_hand():
    # p = 0.5, q = 0.25: x = log(1/2) = -0.693147
    policy, reference = torch.tensor([0.5]).log(), torch.tensor([0.25]).log()
    close(kl_divergence(policy, reference, "k1"), [0.693147])
    close(kl_divergence(policy, reference, "k2"), [0.240227])
    close(kl_divergence(policy, reference, "k3"), [0.193147])


def test_k1_and_k3_average_to_the_true_divergence():
    policy, reference = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.3, 0.3, 0.4])
    true = float((policy * (policy / reference).log()).sum())
    for estimator in ("k1", "k3"):
        found = kl_divergence(policy.log(), reference.log(), estimator)
        assert float((policy * found).sum()) == pytest.approx(true, abs=1e-6)


def test_the_expected_gradient_of_k2_is_that_of_the_divergence_and_that_of_k1_is_zero():
    logits = torch.tensor([0.4, -0.3, 0.1]).requires_grad_()
    log_policy, reference = logits.log_softmax(0), torch.tensor([0.3, 0.3, 0.4]).log()
    policy = log_policy.exp()
    (true,) = torch.autograd.grad(
        (policy * (log_policy - reference)).sum(), logits, retain_graph=True
    )

    def expected(estimator: str) -> torch.Tensor:
        terms = policy.detach() * kl_divergence(log_policy, reference, estimator)
        return torch.autograd.grad(terms.sum(), logits, retain_graph=True)[0]

    torch.testing.assert_close(expected("k2"), true)
    close(expected("k1"), [0.0, 0.0, 0.0], 1e-6)


def test_the_expected_gradient_of_the_entropy_loss_is_minus_that_of_the_entropy():
    logits = torch.tensor([1.0, 0.0, -2.0]).requires_grad_()
    log_policy = logits.log_softmax(0)
    entropy = -(log_policy.exp() * log_policy).sum()
    (true,) = torch.autograd.grad(entropy, logits, retain_graph=True)
    surrogate = (log_policy.exp().detach() * entropy_loss(log_policy)).sum()
    (found,) = torch.autograd.grad(surrogate, logits)
    torch.testing.assert_close(found, -true)
    estimate = (log_policy.exp() * entropy_estimate(log_policy)).sum()
    assert estimate.item() == pytest.approx(entropy.item(), abs=1e-6)


def test_weights_from_the_whole_batch_make_pieces_add_up_to_its_mean():
    mask = torch.tensor([[True, True, True], [True, False, False]])
    losses = torch.tensor([[1.0, 2.0, 3.0], [10.0, 99.0, 99.0]])
    by_token = [(losses[i] * token_mean_weights(mask[i : i + 1], 4)).sum().item() for i in range(2)]
    by_sequence = [
        (losses[i] * sequence_mean_weights(mask[i : i + 1], 2)).sum().item() for i in range(2)
    ]
    assert by_token == pytest.approx([1.5, 2.5])
    assert by_sequence == pytest.approx([1.0, 5.0])


def test_a_batch_without_response_tokens_weighs_nothing():
    mask = torch.zeros(2, 3, dtype=torch.bool)
    assert token_mean_weights(mask, 0).sum() == 0
    assert sequence_mean_weights(mask, 2).sum() == 0
