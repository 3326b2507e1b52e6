"""Learning from given answers, from a job file to its export, by the real engines."""

import json
from pathlib import Path

import pytest

from tests.runs import metrics, rlplan, run, write_model

pytestmark = [pytest.mark.engines, pytest.mark.slow]


def write(folder: Path, name: str, ranks: int, **changes: object) -> None:
    """A job of ten steps on sums, right answers given and, for dpo, wrong ones beside them."""
    folder.mkdir(exist_ok=True)
    write_model(folder / "model", kv_heads=2)
    rows = []
    for a in range(6):
        for b in range(8):
            given = {"chosen": str(a + b), "rejected": str(a + b + 1)}
            answers = given if name == "dpo" else {"answer": str(a + b)}
            rows.append({"prompt": f"{a}+{b}=", **answers})
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    job = {
        "name": "small",
        "model": {"path": "model", "weights": "random"},
        "algorithm": name,
        "data": {"train": "train.jsonl"},
        "batch": {"prompts": 16},
        "tokens": {"prompt": 8, "response": 4},
        "steps": 10,
        "optimizer": {"lr": 1e-3},
        "cluster": {"hardware": "cpu", "ranks": ranks},
    }
    (folder / "job.yaml").write_text(json.dumps({**job, **changes}))


@pytest.mark.parametrize("algorithm", ["sft", "dpo"])
def test_given_answers_are_learned_alike_on_one_and_on_two_ranks(algorithm, tmp_path):
    seen = []
    for ranks in (1, 2):
        write(tmp_path / str(ranks), algorithm, ranks)
        run(tmp_path / str(ranks))
        seen.append([round(row["actor/loss"], 3) for row in metrics(tmp_path / str(ranks))])
    assert seen[0] == seen[1]
    assert seen[0][-1] < seen[0][0]
    plan = json.loads((tmp_path / "2/runs/small/plan.json").read_text())
    assert [phase["name"] for phase in plan["phases"]] == {
        "sft": ["update_actor"],
        "dpo": ["ref", "update_actor"],
    }[algorithm]
    assert {one["role"] for one in plan["placements"]} == {
        "sft": {"actor_train"},
        "dpo": {"actor_train", "reference"},
    }[algorithm]


def test_dpo_comes_to_prefer_the_chosen_answers(tmp_path):
    write(tmp_path, "dpo", 1, steps=40, algorithm={"name": "dpo", "beta": 0.5})
    run(tmp_path)
    rows = metrics(tmp_path)
    assert rows[0]["actor/margin"] == 0.0
    assert rows[-1]["actor/margin"] > 0.1
    assert rows[-1]["actor/preferred"] > rows[1]["actor/preferred"]


def test_sft_stopped_and_resumed_equals_an_unbroken_run(tmp_path):
    folders = [tmp_path / "unbroken", tmp_path / "stopped"]
    for folder in folders:
        write(folder, "sft", 2, checkpoint={"every": 4})
    run(folders[0])
    run(folders[1], "--until", "5")
    run(folders[1], "--resume")
    assert metrics(folders[1]) == metrics(folders[0])


def test_pairs_without_a_second_answer_are_told(tmp_path):
    write(tmp_path, "dpo", 1)
    (tmp_path / "train.jsonl").write_text('{"prompt": "1+1=", "chosen": "2"}\n')
    done = rlplan(tmp_path, "run", "job.yaml")
    assert done.returncode == 65
    assert "train.jsonl:1: rejected: missing" in done.stderr
    assert "Traceback" not in done.stderr
