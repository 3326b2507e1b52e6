from dataclasses import replace
from pathlib import Path

import pytest

from plans.inputs import RULE_REWARDS
from plans.record import ExitCode
from runtime.mistakes import MissingInput, RewardMistake
from runtime.prompt import Prompt
from runtime.rewards import load_rule
from runtime.rules import RULES

TESTS = '{"inputs": ["1", "41"], "outputs": ["2", "42"]}'
PROMPT = Prompt(index=41, text="1+2=", tokens=(4, 13, 5, 16), answer="3")


def score(rule: str, response: str, answer: str, base: Path = Path()) -> float:
    prompt = Prompt(index=0, text="?", tokens=(1,), answer=answer)
    return load_rule(rule, base).score([prompt], [response])[0]


def rule_file(folder: Path, text: str) -> Path:
    (folder / "rule.py").write_text(text)
    return folder


def complaint(folder: Path, text: str) -> str:
    """What is said when `judge` of a rule file scores a response."""
    rule = load_rule("rule.py:judge", rule_file(folder, text))
    with pytest.raises(RewardMistake) as caught:
        rule.score([PROMPT], ["7"])
    assert caught.value.code is ExitCode.REWARD
    return str(caught.value)


def test_the_rules_of_the_job_file_are_the_rules_there_are():
    assert set(RULES) == set(RULE_REWARDS)


@pytest.mark.parametrize(
    ("response", "answer", "reward"),
    [("46", "46", 1), (" 46\n", "46", 1), ("46.", "46", 0), ("", "46", 0), ("046", "46", 0)],
)
def test_exact_wants_the_answer_and_nothing_else(response, answer, reward):
    assert score("exact", response, answer) == reward


@pytest.mark.parametrize(
    ("response", "answer", "reward"),
    [
        ("12 + 34 is 46", "46", 1),
        ("46, because 12 + 34", "46", 0),
        ("so 46.0", "46", 1),
        ("that makes 46.", "46", 1),
        ("-3", "3", 0),
        ("1,234", "1234", 1),
        ("0.50", "the answer is 0.5", 1),
        ("no idea", "46", 0),
        ("10-7", "7", 1),
        ("-7", "-7", 1),
        ("3,4", "4", 1),
        (".5", "0.5", 1),
        ("9007199254740993", "9007199254740992", 0),
    ],
)
def test_number_compares_the_last_number(response, answer, reward):
    assert score("number", response, answer) == reward


def test_number_needs_a_number_in_the_answer():
    with pytest.raises(RewardMistake, match="the answer 'many' holds no number"):
        score("number", "3", "many")


@pytest.mark.parametrize(("response", "reward"), [("x" * 4, 1), ("x" * 2, 0.5), ("x" * 8, 0.5)])
def test_length_falls_with_the_distance_from_the_wanted_one(response, reward):
    assert score("length", response, "4") == reward


@pytest.mark.parametrize(
    ("response", "answer", "reward"),
    [
        ("3 apples and 4\n#### 7", "3+4=<<3+4=7>>7\n#### 7", 1),
        ("#### 1,007", "#### 1007", 1),
        ("the answer is 7", "#### 7", 0),
        ("#### 8", "#### 7", 0),
        ("#### 7\n#### 8", "7", 0),
    ],
)
def test_gsm8k_wants_the_mark_and_the_number_after_it(response, answer, reward):
    assert score("gsm8k", response, answer) == reward


@pytest.mark.parametrize(
    ("response", "answer", "reward"),
    [
        (r"so it is \boxed{\frac{1}{2}}", "0.5", 1),
        (r"$x = \frac{\sqrt{2}}{2}$", r"\frac{1}{\sqrt 2}", 1),
        (r"\boxed{(1, 2]}", r"$(1,2]$", 1),
        (r"\boxed{12}", "13", 0),
        ("I do not know", "13", 0),
        (r"first \boxed{3}, no: \boxed{4}", "4", 1),
    ],
)
def test_math_compares_values_and_not_texts(response, answer, reward):
    assert score("math", response, answer) == reward


@pytest.mark.parametrize(
    ("response", "reward"),
    [
        ("<think>1+2</think>\n<answer>3</answer>", 1),
        ("<think>1+2</think> <answer>3</answer> and more", 0),
        ("<think>a</think><think>b</think><answer>3</answer>", 0),
        ("<answer>3</answer>", 0),
    ],
)
def test_format_wants_one_thought_and_one_answer(response, reward):
    assert score("format", response, "3") == reward


@pytest.mark.parametrize(
    ("source", "response", "answer", "reward"),
    [
        ("openai/gsm8k", "#### 7", "7", 1),
        ("lighteval/MATH", r"\boxed{7.0}", "7", 1),
        ("codecontests", "```python\nprint(int(input()) + 1)\n```", TESTS, 1),
    ],
)
def test_the_rule_follows_the_source_of_a_row(source, response, answer, reward):
    prompt = Prompt(index=0, text="?", tokens=(), answer=answer, source=source)
    assert load_rule("by_source", Path()).score([prompt], [response]) == [reward]


def test_a_source_without_a_rule_is_told():
    with pytest.raises(RewardMistake, match="no rule for data_source 'poems'"):
        load_rule("by_source", Path()).score([replace(PROMPT, source="poems")], ["3"])


def test_a_function_with_verls_parameters_gets_verls_arguments(tmp_path):
    text = (
        "def compute_score(data_source, solution_str, ground_truth, extra_info=None):\n"
        "    assert (data_source, ground_truth, extra_info) == ('s', '3', {'k': 1})\n"
        "    return {'score': float(len(solution_str))}\n"
    )
    prompt = replace(PROMPT, source="s", extra='{"k": 1}')
    rule = load_rule("rule.py:compute_score", rule_file(tmp_path, text))
    assert rule.score([prompt], ["abcd"]) == [4.0]


def test_length_of_nothing_is_worth_nothing_and_needs_a_target():
    assert score("length", "", "4") == 0
    with pytest.raises(RewardMistake, match="no positive number"):
        score("length", "x", "0")


def test_a_function_of_the_user_gets_prompt_response_and_answer(tmp_path):
    text = "def judge(prompt, response, answer):\n    return len(prompt + response + answer)\n"
    found = load_rule("rule.py:judge", rule_file(tmp_path, text)).score([PROMPT], ["77"])
    assert found == [7.0]


def test_a_function_of_the_user_may_keep_dataclasses_in_its_file(tmp_path):
    text = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass Mark:\n    value: float = 0.5\n"
        "def judge(prompt, response, answer):\n    return Mark().value\n"
    )
    assert load_rule("rule.py:judge", rule_file(tmp_path, text)).score([PROMPT], [""]) == [0.5]


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(MissingInput, match=r"rule\.py: no such file"):
        load_rule("rule.py:judge", tmp_path)


def test_a_missing_function_is_told_with_its_signature(tmp_path):
    rule_file(tmp_path, "judge = 3\n")
    with pytest.raises(RewardMistake, match=r"define judge\(prompt, response, answer\) -> float"):
        load_rule("rule.py:judge", tmp_path)


def test_a_file_that_cannot_be_loaded_is_told(tmp_path):
    rule_file(tmp_path, "def judge(:\n")
    with pytest.raises(RewardMistake, match="SyntaxError"):
        load_rule("rule.py:judge", tmp_path)


def test_a_function_that_raises_is_named_with_row_and_exception(tmp_path):
    said = complaint(tmp_path, "def judge(prompt, response, answer):\n    return [][0]\n")
    assert said == (
        "reward rule.py:judge: row 41, response '7': IndexError: list index out of range"
    )


@pytest.mark.parametrize("value", ["None", "'1'", "float('nan')", "float('inf')", "1j"])
def test_a_reward_that_is_no_finite_number_is_told(tmp_path, value):
    said = complaint(tmp_path, f"def judge(prompt, response, answer):\n    return {value}\n")
    assert said.endswith("return a finite number")


def test_true_and_numbers_of_torch_count(tmp_path):
    text = (
        "import torch\ndef judge(prompt, response, answer):\n"
        "    return response == answer if response else torch.tensor(0.25)\n"
    )
    rule = load_rule("rule.py:judge", rule_file(tmp_path, text))
    assert rule.score([PROMPT] * 3, ["3", "4", ""]) == [1.0, 0.0, 0.25]
