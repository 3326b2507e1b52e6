"""The job file as a value: defaults, short forms, and what is refused (see also test_mistakes)."""

from pathlib import Path

import pytest

from plans.source import SpecError
from plans.spec import load
from tests.plans.samples import job

SHORT = """\
name: toy
model: folder
algorithm: ppo
data: {train: train.jsonl}
reward: number
batch: {prompts: 16}
tokens: {prompt: 16, response: 16}
steps: 10
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "job.yaml"
    path.write_text(text)
    return path


def test_a_short_file_gets_every_default_from_one_place(tmp_path):
    found = load(written(tmp_path, SHORT))
    assert found.model.path == "folder"
    assert found.algorithm.name == "ppo"
    assert found.algorithm.clip == 0.2
    assert found.batch.samples == 1
    assert found.optimizer.lr == 1e-6
    assert found.critic_optimizer.lr == 1e-5
    assert found.cluster.hardware == "cpu"
    assert found.slurm.time == "24:00:00"


def test_long_forms_of_model_and_algorithm_mean_the_same(tmp_path):
    long = SHORT.replace("model: folder", "model: {path: folder}").replace(
        "algorithm: ppo", "algorithm: {name: ppo}"
    )
    short = load(written(tmp_path, SHORT))
    assert load(written(tmp_path, long)) == short


def test_ppo_needs_a_critic_and_a_kl_weight_needs_a_reference():
    plain = job()
    assert not plain.needs_critic
    assert not plain.needs_reference
    pulled = job(algorithm={"name": "ppo", "kl": {"weight": 0.1}})
    assert pulled.needs_critic
    assert pulled.needs_reference


def test_a_job_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        job().steps = 11


@pytest.mark.parametrize("rule", ["exact", "number", "length", "rewards.py:score"])
def test_rewards_are_a_rule_or_a_function_in_a_file(rule):
    assert job(reward=rule).reward.rule == rule


def test_a_number_in_scientific_notation_without_a_point_is_a_number(tmp_path):
    """YAML 1.1 reads 1e-6 as a word; people write it, and mean the number."""
    found = load(written(tmp_path, SHORT + "optimizer: {lr: 1e-6}\n"))
    assert found.optimizer.lr == 1e-6


def test_every_mistake_of_a_file_is_told_at_once(tmp_path):
    path = written(tmp_path, SHORT.replace("steps: 10", "steps: ten\nseed: -1\ncolour: red"))
    with pytest.raises(SpecError) as caught:
        load(path)
    assert [line.split(": ")[0].rsplit(":")[-1] for line in str(caught.value).splitlines()] == [
        "8",
        "9",
        "10",
    ]
