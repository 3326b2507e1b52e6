import pytest
import torch

from plans.spec import JobSpec
from runtime import objectives
from runtime.batch import Experience, Sequences
from runtime.sharing import Rows, part


def job(**algorithm) -> JobSpec:
    return JobSpec.model_validate(
        {
            "name": "x",
            "model": "m",
            "algorithm": {"name": "grpo", **algorithm},
            "data": {"train": "t.jsonl"},
            "reward": "exact",
            "batch": {"prompts": 2, "samples": 2},
            "tokens": {"prompt": 2, "response": 3},
            "steps": 1,
        }
    )


def experience() -> Experience:
    """Two prompts of two tokens, two samples each, responses of 3, 1, 2 and 3 tokens."""
    generator = torch.Generator().manual_seed(3)
    sequences = Sequences(
        tokens=torch.randint(1, 9, (4, 5), generator=generator),
        prompt_lengths=torch.tensor([2, 2, 2, 2]),
        lengths=torch.tensor([5, 3, 4, 5]),
    )
    return Experience(
        step=1,
        sequences=sequences,
        rewards=torch.tensor([1.0, 0.0, 0.0, 1.0]),
        rollout_log_probs=-torch.rand(4, 4, generator=generator),
    )


def test_the_sum_over_pieces_is_the_loss_of_the_whole_batch():
    batch = experience()
    spec = job(kl={"weight": 0.1}, entropy_weight=0.01)
    objectives.estimate_advantages(batch, spec)
    batch.reference_log_probs = batch.rollout_log_probs - 0.3
    batch.old_log_probs = batch.rollout_log_probs + 0.05
    log_probs = batch.rollout_log_probs.clone().requires_grad_()
    everything = Rows(0, 4)
    whole, report = objectives.actor_objective(batch, spec, everything, everything)(
        log_probs, slice(0, 4)
    )
    pieces = []
    for shard in (part(4, index, 2) for index in range(2)):
        loss = objectives.actor_objective(batch, spec, everything, shard)
        for row in range(len(shard)):
            at = shard.start + row
            pieces.append(loss(log_probs[at : at + 1], slice(row, row + 1)))
    torch.testing.assert_close(sum(piece for piece, _ in pieces), whole)
    for name, value in report.items():
        torch.testing.assert_close(sum(sums[name] for _, sums in pieces), value)


def test_advantages_of_a_pair_with_one_right_answer_are_plus_and_minus_one_over_root_two():
    batch = experience()
    objectives.estimate_advantages(batch, job())
    expected = 0.5 / (0.5**0.5)
    assert batch.advantages[0, 1:4].tolist() == pytest.approx([expected] * 3, rel=1e-4)
    assert batch.advantages[1].tolist() == pytest.approx([0, -expected, 0, 0], rel=1e-4)


def test_on_the_first_optimizer_step_the_gradient_is_that_of_plain_policy_gradient():
    batch = experience()
    objectives.estimate_advantages(batch, job())
    log_probs = batch.rollout_log_probs.clone().requires_grad_()
    loss, _ = objectives.actor_objective(batch, job(), Rows(0, 4), Rows(0, 4))(
        log_probs, slice(0, 4)
    )
    loss.backward()
    mask = batch.sequences.response_mask
    torch.testing.assert_close(log_probs.grad, -batch.advantages * mask / mask.sum())


def test_a_reward_loses_what_leaving_the_reference_costs():
    batch = experience()
    spec = job(kl={"weight": 0.5, "place": "reward", "estimator": "k1"}, normalize_by_std=False)
    batch.old_log_probs = batch.rollout_log_probs
    batch.reference_log_probs = batch.rollout_log_probs - 1.0
    objectives.estimate_advantages(batch, spec)
    # penalties of 0.5 a token: 1.5, 0.5, 1.0, 1.5 -> rewards -0.5, -0.5, -1.0, -0.5
    assert batch.advantages[:, 1].tolist() == pytest.approx([0.0, 0.0, -0.25, 0.25])


def test_values_outside_the_mask_may_be_infinite_and_do_not_spoil_the_loss():
    batch = experience()
    objectives.estimate_advantages(batch, job())
    log_probs = batch.rollout_log_probs.clone()
    log_probs[~batch.sequences.response_mask] = -torch.inf
    log_probs.requires_grad_()
    loss, report = objectives.actor_objective(batch, job(), Rows(0, 4), Rows(0, 4))(
        log_probs, slice(0, 4)
    )
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(value) for value in report.values())
    assert torch.isfinite(log_probs.grad[batch.sequences.response_mask]).all()


def test_parts_cover_every_row_once_and_differ_by_one_at_most():
    parts = [part(10, index, 4) for index in range(4)]
    assert [row for rows in parts for row in range(rows.start, rows.stop)] == list(range(10))
    assert {len(rows) for rows in parts} == {2, 3}
