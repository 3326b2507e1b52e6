"""What can be done with a run on disk: export, evaluate and replay it, as a user does."""

import json

import pytest
from safetensors.torch import load_file

from tests.runs import rlplan, run, write_job

pytestmark = [pytest.mark.engines, pytest.mark.slow]

STEPS = 3
JOB = {
    "cluster": {"hardware": "cpu", "ranks": 2},
    "roles": {"actor_train": {"tp": 2}},
    "reward": "number",
    "supervised": {"steps": 80, "batch": 16},
    "steps": STEPS,
    "algorithm": {"name": "grpo", "kl": {"weight": 0.01}},
    "batch": {"prompts": 8, "samples": 4, "mini_batches": 2},
    "evaluate": {"every": 1},
    "checkpoint": {"every": 1, "keep": 9},
    "experience": {"keep": 9},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The folder of a job file whose run, on two ranks with tp2, is done; nothing is pruned."""
    folder = tmp_path_factory.mktemp("saved")
    write_job(folder, **JOB)
    run(folder)
    return folder


def told(home, *words):
    """What a command printed as JSON; it must end well."""
    done = rlplan(home, *words, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def accuracies(home):
    """The held-out accuracy that the run itself measured, by step."""
    lines = (home / "runs/small/metrics.jsonl").read_text().splitlines()
    return {row["step"]: row["eval/accuracy"] for row in map(json.loads, lines)}


def test_an_exported_checkpoint_is_what_the_run_exported_bit_for_bit(home):
    told(home, "export", "small", "--to", "whole")
    own = home / "runs/small/export"
    assert sorted(path.name for path in own.iterdir()) == sorted(
        path.name for path in (home / "whole").iterdir()
    )
    for path in own.iterdir():
        assert (home / "whole" / path.name).read_bytes() == path.read_bytes(), path.name


def test_an_earlier_checkpoint_is_exported_in_another_number_format(home):
    found = told(home, "export", "small", "--step", "1", "--dtype", "bfloat16")
    assert found["step"] == 1
    folder = home / "runs/small/exports/step-000001"
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    early = load_file(folder / "model.safetensors")
    late = load_file(home / "runs/small/export/model.safetensors")
    assert {str(one.dtype) for one in early.values()} == {"torch.bfloat16"}
    assert early.keys() == late.keys()
    assert any(not early[name].equal(late[name].bfloat16()) for name in early)


def test_an_evaluation_gives_the_accuracy_that_the_run_measured(home):
    found = told(home, "eval", "small", "--step", "2", "--samples", "4", "--pass-at", "1,4")
    assert found["greedy"]["accuracy"] == accuracies(home)[2]
    assert found["rows"] == 48
    lines = (home / "runs/small/evals/step-000002/samples.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == 48 * 5
    sampled = [row for row in rows if row["kind"] == "sampled"]
    right = {row["row"]: 0 for row in sampled}
    for row in sampled:
        right[row["row"]] += row["right"]
    passes = found["sampled"]["pass_at"]
    assert passes["1"] == pytest.approx(sum(right.values()) / len(sampled))
    assert passes["4"] == sum(count > 0 for count in right.values()) / len(right)
    assert passes["4"] > passes["1"], "samples of a row differ"


@pytest.mark.long
def test_an_export_is_evaluated_like_the_checkpoint_it_was_made_of(home):
    folder = home / "runs/small/export"
    one_rank = ("--fix", "ranks=1,tp=1", "--to", "on-one")
    found = told(home, "eval", str(folder), *one_rank)
    assert found["greedy"]["accuracy"] == accuracies(home)[STEPS]
    assert found["step"] is None


def test_a_replay_equals_the_run_bit_for_bit_with_the_weights_it_left(home):
    found = told(home, "replay", "small")
    assert (found["first"], found["last"]) == (1, STEPS)
    assert found["parted"] is None
    assert found["largest"] == 0
    names = [one["name"] for one in found["steps"][0]["values"]]
    order = ["old_log_probs", "reference_log_probs", "advantages", "actor/pg_loss"]
    assert [name for name in names if name in order] == order
    assert "actor/grad_norm" in names
    assert [one["role"] for one in found["weights"]] == ["actor_train"]


@pytest.mark.long
def test_a_replay_on_another_layout_is_off_by_less_than_a_hundred_thousandth(home):
    done = rlplan(home, "replay", "small", "--fix", "ranks=1,tp=1", "--json")
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert found["parted"]["step"] == 1
    assert 0 < found["largest"] < 1e-5
