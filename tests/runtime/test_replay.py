"""What a replay compares, and what it takes to have one."""

import math

import pytest
import torch

from launcher.replaying import what_to_replay
from plans.record import StepRecord
from plans.reports.replayed import first_difference, largest_difference, replayed_text
from plans.source import UserError
from runtime.replay import largest, metric_differences

NAN = float("nan")


@pytest.mark.parametrize(
    ("recorded", "replayed", "difference"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 2.0], [1.0, 2.5], 0.5),
        ([NAN, 2.0], [NAN, 2.0], 0.0),
        ([NAN, 2.0], [1.0, 2.0], None),
        ([1.0], [1.0, 2.0], None),
        ([], [], 0.0),
    ],
)
def test_the_largest_distance_of_two_tensors(recorded, replayed, difference):
    assert largest(torch.tensor(recorded), torch.tensor(replayed)) == difference


def test_one_bit_is_a_difference():
    value = torch.tensor([0.1])
    assert largest(value, torch.nextafter(value, torch.tensor([1.0]))) > 0


def test_metrics_are_compared_but_those_of_time():
    record = StepRecord(
        step=1,
        metrics={"actor/kl": NAN, "reward/mean": 0.5, "timing_s/adv": 1.0, "perf/total_tokens": 3},
    )
    recorded = {"actor/kl": NAN, "reward/mean": 0.25, "timing_s/adv": 2.0, "perf/total_tokens": 4}
    found = {one["name"]: one["difference"] for one in metric_differences(record, recorded)}
    assert found == {"actor/kl": 0.0, "reward/mean": 0.25}


def found(*differences):
    """What a replay of steps 1, 2, ... found: a value a step."""
    values = [
        {"name": "actor/grad_norm", "recorded": 4.0, "replayed": 4.0, "difference": one}
        for one in differences
    ]
    steps = [{"step": at + 1, "values": [value]} for at, value in enumerate(values)]
    weights = [{"role": "actor_train", "name": "w", "difference": 0.5, "parameters": 9}]
    return {"steps": steps, "weights": weights}


def test_the_first_difference_is_that_of_the_earliest_step():
    parted = first_difference(found(0.0, 0.1, 0.2), 0.0)
    assert (parted["step"], parted["difference"]) == (2, 0.1)


def test_a_tolerance_is_of_the_value():
    assert first_difference(found(3.9), 1.0) is None
    assert first_difference(found(4.1), 1.0)["step"] == 1


def test_weights_are_compared_last_and_what_is_no_number_always_differs():
    assert first_difference(found(0.0), 0.0)["role"] == "actor_train"
    assert first_difference(found(None), math.inf)["step"] == 1
    assert largest_difference(found(None)) is None


def test_a_person_reads_where_they_part():
    result = {"run": "small", "first": 1, "last": 2, "more": [], **found(0.0, 0.1)}
    text = replayed_text({**result, "parted": first_difference(result, 0.0), "largest": 0.5})
    assert "parted    step 2, actor/grad_norm: 4.0 then, 4.0 now, off by 0.1" in text


@pytest.fixture
def run(tmp_path):
    """A folder with checkpoints of 2 and 6, and experience of steps 3 to 7 but 5."""
    for kind, steps in {"checkpoints": (2, 6), "experience": (3, 4, 6, 7)}.items():
        for step in steps:
            (tmp_path / kind / f"step-{step:06d}").mkdir(parents=True)
    return tmp_path


def test_without_steps_the_longest_stretch_is_replayed(run):
    asked = what_to_replay(run, None, warm=True)
    assert (asked["first"], asked["last"], asked["end"]) == (3, 4, None)
    assert asked["start"].endswith("step-000002")


def test_the_checkpoint_of_the_last_step_is_compared_with(run):
    (run / "checkpoints/step-000004").mkdir()
    assert what_to_replay(run, (3, 4), warm=True)["end"].endswith("step-000004")


def test_a_run_without_a_warm_up_also_starts_from_its_first_weights(run):
    (run / "experience/step-000001").mkdir()
    assert what_to_replay(run, (1, 1), warm=False)["start"] is None
    with pytest.raises(UserError, match="cannot replay steps 1 to 1"):
        what_to_replay(run, (1, 1), warm=True)


@pytest.mark.parametrize("steps", [(3, 6), (4, 4), (8, 8)])
def test_a_stretch_with_a_gap_is_refused_with_what_there_is(run, steps):
    text = "checkpoints of 2, 6 and experience of 3, 4, 6, 7"
    with pytest.raises(UserError, match=text):
        what_to_replay(run, steps, warm=True)
