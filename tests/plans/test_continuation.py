from dataclasses import replace

import pytest

from plans.continuation import changed_learning
from plans.load import make_plan
from plans.plan import Plan
from plans.spec import JobSpec
from tests.runs import ROOT


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(ROOT / "examples" / "addition-grpo.yaml")


def changed(plan: Plan, **keys: object) -> Plan:
    """The plan of the same job with other keys."""
    return replace(plan, job=JobSpec.model_validate({**plan.data()["job"], **keys}))


@pytest.mark.parametrize(
    "keys",
    [
        {"cluster": {"hardware": "cpu", "ranks": 4}},
        {"roles": {"actor_train": {"tp": 2}}},
        {"steps": 7},
        {"slurm": {"time": "1:00:00"}},
        {"checkpoint": {"every": 3, "keep": 5}},
    ],
)
def test_a_run_may_go_on_elsewhere_longer_or_saved_more_often(plan, keys):
    assert changed_learning(plan, changed(plan, **keys)) == []


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"seed": 5}, ["seed: was 0, is 5"]),
        ({"optimizer": {"lr": 1.0}}, ["optimizer.lr"]),
        ({"temperature": 0.5}, ["temperature: was 1.0, is 0.5"]),
        ({"tokens": {"prompt": 5, "response": 9}}, ["tokens.response"]),
        ({"reward": "number"}, ["reward.rule"]),
    ],
)
def test_a_run_may_not_go_on_to_learn_something_else(plan, keys, said):
    found = changed_learning(plan, changed(plan, **keys))
    assert len(found) >= 1
    assert all(any(line.startswith(word) for line in found) for word in said)


def test_another_model_or_precision_is_something_else(plan):
    other = replace(plan, precision="bf16", model=replace(plan.model, hidden_size=1))
    assert changed_learning(plan, other) == [
        "model: another config.json",
        "precision: was fp32, is bf16",
    ]
