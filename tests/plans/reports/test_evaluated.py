"""Accuracy and pass@k are what counting every choice of answers gives."""

from itertools import combinations

import pytest

from plans.reports.evaluated import Tally, evaluated_text, pass_at, pass_at_k, powers_up_to


@pytest.mark.parametrize("answers", range(1, 9))
def test_pass_at_k_is_the_share_of_choices_with_a_right_answer(answers):
    for right in range(answers + 1):
        marks = [True] * right + [False] * (answers - right)
        for k in range(1, answers + 1):
            choices = list(combinations(marks, k))
            share = sum(any(choice) for choice in choices) / len(choices)
            assert pass_at_k(answers, right, k) == pytest.approx(share, abs=1e-12)


def test_pass_at_k_of_many_answers_does_not_overflow():
    assert pass_at_k(10_000, 1, 100) == pytest.approx(0.01)


def counted(marks):
    """Answers to rows, told as one list of right or wrong a row."""
    tally = Tally()
    for row, its in enumerate(marks):
        for sample, right in enumerate(its):
            reward = 1.0 if right else 0.5
            answer = {"row": row, "sample": sample, "right": right, "reward": reward}
            tally.add({**answer, "tokens": 3 + sample, "finished": right})
    return tally.result()


def test_accuracy_and_means_are_those_of_all_answers():
    found = counted([[True, False], [False, False], [True, True]]).data()
    assert found["accuracy"] == 0.5
    assert found["mean_reward"] == 0.75
    assert found["mean_tokens"] == 3.5
    assert found["unfinished"] == 3
    # rows are the draws: 1/2, 0 and 1, with a variance of 1/4
    assert found["standard_error"] == pytest.approx((0.25 / 3) ** 0.5)


def test_pass_at_one_is_the_accuracy():
    found = counted([[True, False, False, False], [False] * 4, [True] * 4])
    passes = pass_at(found, (1, 2, 4))
    assert passes[1] == pytest.approx(found.accuracy)
    assert passes[2] == pytest.approx((0.5 + 0 + 1) / 3)
    assert passes[4] == pytest.approx(2 / 3)


def test_nothing_counted_is_nothing():
    assert Tally().result() is None


@pytest.mark.parametrize(("most", "told"), [(1, (1,)), (4, (1, 2, 4)), (6, (1, 2, 4, 6))])
def test_powers_of_two_and_the_number_itself_are_told(most, told):
    assert powers_up_to(most) == told


def test_a_person_reads_rows_rule_accuracy_and_its_error():
    found = counted([[True], [False]])
    result = {
        "model": "small",
        "step": 3,
        "data": "held-out.jsonl",
        "rows": 2,
        "reward": {"exact": 1.0},
        "greedy": found.data(),
        "sampled": None,
        "timeouts": 1,
    }
    lines = evaluated_text(result).splitlines()
    assert lines[0] == "small step 3 · held-out.jsonl: 2 rows · reward exact"
    assert lines[1].startswith("greedy    accuracy 0.500 ± 0.500")
    assert lines[2].startswith("timeouts  1 ")
