"""Held-out accuracy: greedy answers of the rollout engine, judged by the job's rule."""

from __future__ import annotations

from collections.abc import Sequence

from plans.values import frozen
from runtime.control import Control
from runtime.generation import Generator
from runtime.judges import Judge
from runtime.prompt import Prompt
from runtime.tokenizer import Tokenizer

FULL_REWARD = 1.0


@frozen
class Answer:
    """A response to a row, its reward, and its length; `finished`: it ended by itself."""

    row: int
    text: str
    reward: float
    tokens: int
    finished: bool

    @property
    def right(self) -> bool:
        """Whether it earns the full reward."""
        return self.reward >= FULL_REWARD


@frozen
class Evaluation:
    """Held-out rows and what judges them; each replica answers its part."""

    prompts: Sequence[Prompt]
    tokenizer: Tokenizer
    generator: Generator
    judge: Judge
    control: Control

    def accuracy(self, seconds: float | None = None) -> float:
        """The share of rows whose greedy answer earns the full reward, on every rank.

        A rank waits `seconds` for those that answer.
        """
        found = self.answers(self.prompts, 0.0, [0] * len(self.prompts))
        right = sum(answer.right for answer in found)
        everyones: list[int] = self.control.gather(right, what="accuracy", seconds=seconds)
        return sum(everyones) / len(self.prompts)

    def answers(
        self, prompts: Sequence[Prompt], temperature: float, seeds: Sequence[int]
    ) -> list[Answer]:
        """This replica's part of the answers to some rows, in order; its first rank has them."""
        rows = self.generator.rows(len(prompts))
        mine = prompts[rows.slice]
        done = self.generator.complete(mine, temperature, seeds[rows.slice])
        if not self.generator.speaks:
            return []
        texts = [self.tokenizer.decode(one.tokens) for one in done]
        return [
            Answer(
                row=prompt.index,
                text=text,
                reward=reward,
                tokens=len(one.tokens),
                finished=one.tokens[-1:] == (self.tokenizer.end_token,),
            )
            for prompt, one, text, reward in zip(
                mine, done, texts, self.judge.score(mine, texts), strict=True
            )
        ]
