"""Whole runs with adapters, started as a user starts them."""

import json

import pytest
import torch

from tests.runs import metrics, run, write_job

pytestmark = [pytest.mark.engines, pytest.mark.slow]
NAMES = ("reward/mean", "actor/grad_norm", "actor/pg_loss", "actor/kl")
CHANGES = {
    "lora": {"rank": 4, "alpha": 8},
    "algorithm": {"name": "grpo", "kl": {"weight": 0.1}},
    "optimizer": {"lr": 1e-2},
}


def adapted(folder, *, ranks=1, tp=1, dp=1, rollout_tp=1, **changes):
    """The metrics and the run folder of a small run with adapters."""
    roles = {"actor_train": {"tp": tp, "dp": dp}, "actor_rollout": {"tp": rollout_tp}}
    cluster = {"hardware": "cpu", "ranks": ranks}
    write_job(folder, **{**CHANGES, "roles": roles, "cluster": cluster, **changes})
    run(folder)
    return metrics(folder), folder / "runs" / "small"


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return adapted(tmp_path_factory.mktemp("alone"))


def greedy(model, tokenizer, prompt):
    """Four greedy tokens of a Hugging Face model."""
    tokens = torch.tensor([tokenizer.encode(prompt, add_special_tokens=False)])
    with torch.no_grad():
        return model.generate(tokens, max_new_tokens=4, do_sample=False, pad_token_id=0).tolist()


@pytest.mark.parametrize(
    "layout",
    [
        (2, 2, 1, 1),
        pytest.param((2, 2, 1, 2), marks=pytest.mark.long),
        pytest.param((2, 1, 2, 1), marks=pytest.mark.long),
    ],
    ids=["tp2-tp1", "tp2-tp2", "dp2-tp1"],
)
def test_every_layout_walks_the_same_steps_and_moves_adapters_alone(layout, alone, tmp_path):
    ranks, tp, dp, rollout_tp = layout
    rows, folder = adapted(tmp_path, ranks=ranks, tp=tp, dp=dp, rollout_tp=rollout_tp)
    for row, other in zip(rows, alone[0], strict=True):
        assert [row[name] for name in NAMES] == pytest.approx(
            [other[name] for name in NAMES], rel=1e-4, abs=1e-6
        )
        assert row["actor/rollout_gap"] < 1e-4
    plan = json.loads((folder / "plan.json").read_text())
    switch = plan["reshard"]
    assert switch["received_bytes"] == switch["bound_bytes"]
    assert {row["reshard/received_bytes"] for row in rows} == {switch["received_bytes"]}
    assert switch["received_bytes"] <= plan["base_reshard"]["received_bytes"]


def test_the_first_step_is_at_the_reference_and_the_next_are_not(alone):
    distances = [row["actor/kl"] for row in alone[0]]
    assert distances[0] == pytest.approx(0, abs=1e-9)
    assert distances[-1] > 1e-6


def test_peft_makes_of_the_adapter_what_the_run_exports(alone):
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    from plans.plan import read_plan
    from runtime.policy import initial_weights

    _, folder = alone
    plan = read_plan(folder / "plan.json")
    model = folder.parents[1] / "model"
    exported = AutoModelForCausalLM.from_pretrained(folder / "export").eval()
    base = AutoModelForCausalLM.from_pretrained(folder / "export").eval()
    base.load_state_dict(dict(initial_weights(plan, model).items()), strict=False)
    adapted = peft.PeftModel.from_pretrained(base, folder / "adapter").eval()
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "export/tokenizer.json"))
    prompts = [f"{a}+{b}=" for a in range(4) for b in range(4)]
    assert [greedy(adapted, tokenizer, one) for one in prompts] == [
        greedy(exported, tokenizer, one) for one in prompts
    ]
    merged = adapted.merge_and_unload().state_dict()
    for name, tensor in exported.state_dict().items():
        assert (merged[name] - tensor).abs().max() < 1e-6
