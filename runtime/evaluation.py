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
class Evaluation:
    """Held-out rows and what judges them; each replica answers its part."""

    prompts: Sequence[Prompt]
    tokenizer: Tokenizer
    generator: Generator
    judge: Judge
    control: Control

    def accuracy(self) -> float:
        """The share of rows whose greedy answer earns the full reward, on every rank."""
        rows = self.generator.rows(len(self.prompts))
        mine = self.prompts[rows.slice]
        answers = self.generator.complete(mine, 0.0, [0] * len(mine))
        texts = [self.tokenizer.decode(answer.tokens) for answer in answers]
        rewards = self.judge.score(mine, texts) if self.generator.speaks else []
        right = sum(reward >= FULL_REWARD for reward in rewards)
        everyones: list[int] = self.control.gather(right, what="accuracy")
        return sum(everyones) / len(self.prompts)
