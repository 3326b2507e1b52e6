"""What answers to held-out rows are worth: accuracy, pass@k, and the mean reward."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import comb, sqrt
from typing import Any

from plans.values import frozen


@frozen
class Answers:
    """Answers to rows, counted: how many, how many right, their rewards and tokens, summed.

    `right` maps a row to the number of its answers that earn the full reward, 0 included.
    """

    right: Mapping[int, int]
    answers: int
    reward: float
    tokens: int
    unfinished: int

    @property
    def accuracy(self) -> float:
        """The share of answers that earn the full reward."""
        return sum(self.right.values()) / self.answers

    @property
    def each(self) -> int:
        """Answers to each row."""
        return self.answers // len(self.right)

    def data(self) -> dict[str, Any]:
        """As JSON can hold it; `standard_error` is that of the mean over the rows."""
        return {
            "answers": self.answers,
            "accuracy": self.accuracy,
            "standard_error": _standard_error([n / self.each for n in self.right.values()]),
            "mean_reward": self.reward / self.answers,
            "mean_tokens": self.tokens / self.answers,
            "unfinished": self.unfinished,
        }


@dataclass(slots=True)
class Tally:
    """Counts answers one by one, so that a file of millions is read once."""

    right: dict[int, int] = field(default_factory=dict)
    answers: int = 0
    reward: float = 0.0
    tokens: int = 0
    unfinished: int = 0

    def add(self, answer: Mapping[str, Any]) -> None:
        """Count one answer: a line of samples.jsonl."""
        row = answer["row"]
        self.right[row] = self.right.get(row, 0) + bool(answer["right"])
        self.answers += 1
        self.reward += answer["reward"]
        self.tokens += answer["tokens"]
        self.unfinished += not answer["finished"]

    def result(self) -> Answers | None:
        """What was counted; None when nothing was."""
        if not self.answers:
            return None
        return Answers(
            right=self.right,
            answers=self.answers,
            reward=self.reward,
            tokens=self.tokens,
            unfinished=self.unfinished,
        )


def pass_at(found: Answers, wanted: Iterable[int]) -> dict[int, float]:
    """For each k the chance that one of k answers to a row is right, a mean over the rows."""
    counts = found.right.values()
    return {k: sum(pass_at_k(found.each, n, k) for n in counts) / len(counts) for k in wanted}


def pass_at_k(answers: int, right: int, k: int) -> float:
    """1 - C(n - c, k) / C(n, k): unbiased for n answers of which c are right, k <= n.

    Chen et al. 2021, "Evaluating Large Language Models Trained on Code", eq. 1; exact, since
    Python's integers are.
    """
    assert 1 <= k <= answers, "k answers are taken from those there are"
    assert 0 <= right <= answers, "right answers are among them"
    return 1 - comb(answers - right, k) / comb(answers, k)


def powers_up_to(most: int) -> tuple[int, ...]:
    """1, 2, 4, ... and the number itself: the k that are told when none is asked for."""
    powers = [1 << place for place in range(most.bit_length())]
    return tuple(sorted({*powers, most}))


def evaluated_text(result: Mapping[str, Any]) -> str:
    """A result on a few lines, for a person."""
    greedy, sampled = result["greedy"], result["sampled"]
    step = "" if result["step"] is None else f" step {result['step']}"
    lines = [
        f"{result['model']}{step} · {result['data']}: {result['rows']} rows · "
        f"reward {' + '.join(result['reward'])}"
    ]
    if greedy:
        lines.append(
            f"greedy    accuracy {greedy['accuracy']:.3f} ± {greedy['standard_error']:.3f} · "
            f"{_means(greedy)}"
        )
    if sampled:
        passes = ", ".join(f"pass@{k} {share:.3f}" for k, share in sampled["pass_at"].items())
        lines.append(
            f"sampled   {sampled['samples']} at temperature {sampled['temperature']:g} · "
            f"{passes} · {_means(sampled)}"
        )
    if result["timeouts"]:
        lines.append(f"timeouts  {result['timeouts']} answers took their rule too long: 0 each")
    return "\n".join(lines)


def _means(part: Mapping[str, Any]) -> str:
    cut = f", {part['unfinished']} cut off" if part["unfinished"] else ""
    return f"mean reward {part['mean_reward']:.3f} · {part['mean_tokens']:.1f} tokens{cut}"


def _standard_error(values: Sequence[float]) -> float:
    """Of the mean of values that were drawn by themselves; 0 for a single one."""
    count = len(values)
    if count < 2:
        return 0.0
    mean = sum(values) / count
    return sqrt(sum((value - mean) ** 2 for value in values) / (count - 1) / count)
