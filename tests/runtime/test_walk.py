"""The order in which the phases of a step are walked, back and forth."""

from pathlib import Path

import torch

from plans.load import make_plan
from runtime.batch import Sequences, joined
from runtime.control import SingleControl
from runtime.heartbeat import Recorder
from runtime.prompt import Prompt
from runtime.sampling import Judged
from runtime.walk import walk
from tests.runs import ROOT


class Sampling:
    """Work that samples three times before it is content, and remembers what it did."""

    def __init__(self) -> None:
        self.walked: list[str] = []

    def phase(self, name: str, step: int) -> dict[str, float]:
        self.walked.append(f"{name} {step}")
        return {"passes": float(self.walked.count(f"gen {step}"))}

    def again(self, name: str) -> str | None:
        few = self.walked.count(self.walked[-1]) < 3
        return "gen" if name == "reward" and few else None

    def settle(self, metrics: dict[str, float]) -> dict[str, float]:
        assert metrics["passes"] == 3.0
        return {"settled": 1.0}


def test_generation_and_rewards_are_walked_again_until_the_work_has_enough(tmp_path: Path):
    plan = make_plan(ROOT / "examples" / "addition-dapo.yaml")
    work = Sampling()
    recorder = Recorder(tmp_path, 0, "here", overdue=lambda _beat: None)
    (record,) = walk(plan, SingleControl(), work, recorder, [1])
    assert work.walked == [
        "reshard 1",
        *["gen 1", "reward 1"] * 3,
        "adv 1",
        "update_actor 1",
    ]
    assert recorder.beat.count == len(work.walked)
    assert record.metrics["passes"] == 3.0
    assert set(record.metrics) - {"passes", "settled"} == {
        *(f"timing_s/{phase.name}" for phase in plan.phases),
        "timing_s/step",
    }


def test_groups_of_several_passes_stand_together_padded_and_are_cut_to_the_longest():
    first = Sequences(
        tokens=torch.tensor([[1, 2, 3], [1, 4, 0]]),
        prompt_lengths=torch.tensor([1, 1]),
        lengths=torch.tensor([3, 2]),
    )
    second = Sequences(
        tokens=torch.tensor([[5, 6, 7, 8, 9], [5, 6, 0, 0, 0]]),
        prompt_lengths=torch.tensor([2, 2]),
        lengths=torch.tensor([5, 3]),
    )
    whole = joined([first, second], pad_token=0)
    assert whole.tokens.tolist() == [
        [1, 2, 3, 0, 0],
        [1, 4, 0, 0, 0],
        [5, 6, 7, 8, 9],
        [5, 6, 0, 0, 0],
    ]
    judged = Judged(
        prompts=[Prompt(index=row, text="", tokens=(1,), answer="") for row in range(4)],
        sequences=whole,
        log_probs=torch.zeros(4, 4),
        rewards=torch.tensor([1.0, 0.0, 0.0, 1.0]),
    )
    chosen = judged.of_groups(torch.tensor([0]), samples=2)
    assert [prompt.index for prompt in chosen.prompts] == [0, 1]
    assert chosen.sequences.tokens.tolist() == [[1, 2, 3], [1, 4, 0]]
    assert chosen.log_probs.shape == (2, 2)
    assert chosen.rewards.tolist() == [1.0, 0.0]
