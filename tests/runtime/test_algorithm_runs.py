"""Each algorithm, run from a job file to its export by the real engines, on one and two ranks."""


import pytest

from tests.runs import metrics, run, write_job

pytestmark = [pytest.mark.engines, pytest.mark.slow]

TWO = {"hardware": "cpu", "ranks": 2}
KL = {"weight": 0.05}
# name: what is changed of the small job
JOBS = {
    "dr. grpo": {"algorithm": "drgrpo"},
    "grpo with the mean of its paper and an entropy bonus": {
        "algorithm": {"name": "grpo", "aggregation": "sequence-mean", "entropy_weight": 0.01}
    },
    "rloo with kl in the reward": {"algorithm": {"name": "rloo", "kl": KL}},
    "reinforce++ with kl in the reward": {"algorithm": {"name": "reinforce++", "kl": KL}},
    "remax": {"algorithm": "remax"},
    "gspo in two mini-batches": {
        "algorithm": "gspo",
        "batch": {"prompts": 8, "samples": 4, "mini_batches": 2},
    },
    "grpo in two epochs with a cap": {
        "algorithm": {"name": "grpo", "importance_cap": 2.0},
        "batch": {"prompts": 8, "samples": 4, "epochs": 2},
    },
    "ppo in two epochs": {
        "algorithm": "ppo",
        "batch": {"prompts": 8, "samples": 4, "epochs": 2, "mini_batches": 2},
        "critic_optimizer": {"lr": 1e-3},
    },
}
SEEN = ("reward/mean", "actor/pg_loss", "actor/grad_norm", "actor/clip_frac", "actor/entropy")


@pytest.mark.parametrize("case", JOBS)
def test_an_algorithm_runs_the_same_on_one_and_on_two_ranks(case, tmp_path):
    seen = []
    for ranks in (1, 2):
        folder = tmp_path / str(ranks)
        folder.mkdir()
        cluster = {"hardware": "cpu", "ranks": ranks}
        write_job(folder, cluster=cluster, steps=2, supervised=None, **JOBS[case])
        run(folder)
        seen.append([{name: round(row[name], 3) for name in SEEN} for row in metrics(folder)])
    assert seen[0] == seen[1]
    assert all(row["actor/grad_norm"] > 0 for row in seen[0])
