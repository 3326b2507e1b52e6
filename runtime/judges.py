"""Workers that judge responses: several at a time, each sample within its seconds."""

from __future__ import annotations

import json
import logging
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from runtime.environment import current, without_launchers
from runtime.mistakes import RewardMistake
from runtime.prompt import Prompt
from runtime.rewards import load_rule, place_text, runs_apart

# Importing a rule's libraries takes a second; a file system under load takes longer.
START_SECONDS = 120.0


class Judge(Protocol):
    """What gives each response its reward; `timeouts` counts those that got 0 for their time."""

    @property
    def timeouts(self) -> int: ...

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[float]: ...


def open_judge(rules: Mapping[str, float], base: Path, *, count: int, seconds: float) -> Judge:
    """The judge that a job's rules make: one rule, or the sum of several by their weights.

    Raises MissingInput or RewardMistake when a rule cannot be loaded.
    """
    judges = [(_judge(name, base, count, seconds), weight) for name, weight in rules.items()]
    (only, weight), *others = judges
    return Weighted(judges) if others or weight != 1 else only


def _judge(name: str, base: Path, count: int, seconds: float) -> Judge:
    if not runs_apart(name):
        return load_rule(name, base)
    found = Judges(name=name, base=base, count=count, seconds=seconds)
    found.start()
    return found


@dataclass(slots=True)
class Weighted:
    """Several judges; a response's reward is the sum of theirs, each times its weight."""

    judges: Sequence[tuple[Judge, float]]

    @property
    def timeouts(self) -> int:
        return sum(judge.timeouts for judge, _ in self.judges)

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[float]:
        found = [judge.score(prompts, responses) for judge, _ in self.judges]
        weights = [weight for _, weight in self.judges]
        return [
            sum(weight * reward for weight, reward in zip(weights, each, strict=True))
            for each in zip(*found, strict=True)
        ]


@dataclass(slots=True)
class Worker:
    """One process, and the sample it is at: its place in the batch and when it must have ended."""

    process: subprocess.Popen[bytes]
    place: int | None = None
    deadline: float = 0.0
    heard: bytes = b""

    @property
    def answers(self) -> int:
        assert self.process.stdout is not None, "a worker's answers are read from a pipe"
        return self.process.stdout.fileno()

    def ask(self, sample: dict[str, Any]) -> None:
        assert self.process.stdin is not None, "a worker is asked through a pipe"
        self.process.stdin.write(json.dumps(sample).encode() + b"\n")
        self.process.stdin.flush()

    def hear(self) -> dict[str, Any] | None:
        """The next answer, None when only a part of it is there; EOFError when it has ended."""
        part = os.read(self.answers, 1 << 16)
        if not part:
            raise EOFError
        self.heard += part
        line, end, rest = self.heard.partition(b"\n")
        if not end:
            return None
        self.heard = rest
        answer: dict[str, Any] = json.loads(line)
        return answer

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()


@dataclass(slots=True, kw_only=True)
class Judges:
    """A reward rule applied by `count` workers; a sample that takes longer than `seconds` gets 0.

    `timeouts` counts those. Workers start with the first batch and end with `close`.
    """

    name: str
    base: Path
    count: int
    seconds: float
    timeouts: int = 0
    _workers: list[Worker] = field(default_factory=list)

    def start(self) -> None:
        """Start the first worker; RewardMistake when the rule cannot be loaded."""
        if not self._workers:
            self._workers.append(self._worker())

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[float]:
        """The reward of each response; RewardMistake names rule, row and reason."""
        samples = [_sample(*pair) for pair in zip(prompts, responses, strict=True)]
        while len(self._workers) < min(self.count, len(samples)):
            self._workers.append(self._worker())
        rewards = [0.0] * len(samples)
        waiting = iter(range(len(samples)))
        for worker in self._workers:
            self._next(worker, waiting, samples)
        while any(worker.place is not None for worker in self._workers):
            for worker, answer in self._answers():
                assert worker.place is not None, "only who was asked answers"
                rewards[worker.place] = self._reward(
                    answer, prompts[worker.place], responses[worker.place]
                )
                self._next(worker, waiting, samples)
        return rewards

    def close(self) -> None:
        """End the workers."""
        while self._workers:
            self._workers.pop().stop()

    def _reward(self, answer: dict[str, Any] | None, prompt: Prompt, response: str) -> float:
        """Of an answer; None is a worker that took too long, {} one that ended."""
        if answer is None:
            self.timeouts += 1
            place = place_text(self.name, prompt, response)
            logging.getLogger("rlplan").warning(f"{place}: more than {self.seconds:g} s, gets 0")
            return 0.0
        if "reward" in answer:
            return float(answer["reward"])
        text = answer.get("mistake")
        place = place_text(self.name, prompt, response)
        raise RewardMistake(
            text or f"{place}: the process that judged it ended; see the rank's log"
        )

    def _next(self, worker: Worker, waiting: Iterator[int], samples: Sequence[Any]) -> None:
        worker.place = next(waiting, None)
        if worker.place is not None:
            worker.deadline = time.monotonic() + self.seconds
            worker.ask(samples[worker.place])

    def _answers(self) -> Iterator[tuple[Worker, dict[str, Any] | None]]:
        """What the busy workers say next; those beyond their time are replaced."""
        busy = {worker.answers: worker for worker in self._workers if worker.place is not None}
        soonest = min(worker.deadline for worker in busy.values())
        ready, _, _ = select.select(list(busy), [], [], max(0.0, soonest - time.monotonic()))
        for place in ready:
            try:
                answer = busy[place].hear()
            except EOFError:
                answer = {}
            if answer is not None:
                yield busy[place], answer
        for worker in busy.values():
            if worker.place is not None and time.monotonic() > worker.deadline:
                self._replace(worker)
                yield worker, None

    def _replace(self, worker: Worker) -> None:
        worker.stop()
        fresh = self._worker()
        worker.process, worker.heard = fresh.process, b""

    def _worker(self) -> Worker:
        """A worker that has said it is ready; RewardMistake with what it said instead."""
        worker = Worker(
            subprocess.Popen(
                [sys.executable, "-m", "runtime.judge", self.name, str(self.base)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=without_launchers(current()),
            )
        )
        answer: dict[str, Any] | None = None
        until = time.monotonic() + START_SECONDS
        while answer is None and time.monotonic() < until:
            ready, _, _ = select.select([worker.answers], [], [], until - time.monotonic())
            try:
                answer = worker.hear() if ready else None
            except EOFError:
                answer = {}
        if answer and "ready" in answer:
            return worker
        worker.stop()
        text = (answer or {}).get("mistake")
        raise RewardMistake(text or f"reward {self.name}: no worker could be started for it")


def _sample(prompt: Prompt, response: str) -> dict[str, Any]:
    kept = {key: getattr(prompt, key) for key in ("index", "text", "answer", "source", "extra")}
    return {"prompt": kept, "response": response}
