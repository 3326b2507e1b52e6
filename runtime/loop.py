"""One RL step, phase by phase. The plan gives the order; this file says what each phase does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from plans.dataflow import Role
from plans.plan import Plan
from runtime import objectives
from runtime.assembly import Engines
from runtime.batch import Completion, Experience, Sequences
from runtime.data import prompts_of_step, request_seed
from runtime.generation import Generator
from runtime.judges import Judge
from runtime.prompt import Prompt
from runtime.sharing import Rows, part, share
from runtime.tokenizer import Tokenizer


@dataclass(slots=True, kw_only=True)
class StepWork:
    """What the phases of a step do on this rank; `walk` calls `phase` in the plan's order."""

    plan: Plan
    engines: Engines
    prompts: Sequence[Prompt]
    tokenizer: Tokenizer
    generator: Generator
    judge: Judge | None
    device: torch.device
    _step: int = 0
    _batch: list[Prompt] = field(default_factory=list)
    _completions: list[Completion] = field(default_factory=list)
    _experience: Experience | None = None

    def phase(self, name: str, step: int) -> dict[str, float]:
        """Do one phase of a step; returns what it measured, by metric name."""
        work: dict[str, Callable[[], dict[str, float]]] = {
            "reshard": self._reshard,
            "gen": self._generate,
            "reward": self._reward,
            "old_log_prob": self._old_log_probs,
            "ref": self._reference_log_probs,
            "values": self._values,
            "adv": self._advantages,
            "update_critic": self._update_critic,
            "update_actor": self._update_actor,
        }
        self._step = step
        return work[name]()

    @property
    def experience(self) -> Experience:
        assert self._experience is not None, "the reward phase makes the experience"
        return self._experience

    @property
    def generated_tokens(self) -> float:
        """Response tokens of the step, over all ranks."""
        sequences = self.experience.sequences
        return float((sequences.lengths - sequences.prompt_lengths).sum())

    def samples(self, count: int) -> list[str]:
        """A few prompts of this rank with their responses and rewards, for a person to read."""
        rows = self.generator.rows(len(self._batch))
        shown = zip(self._batch[rows.slice], self._completions, strict=True)
        rewards = self.experience.rewards[rows.slice].tolist()
        return [
            f"{prompt.text}{self.tokenizer.decode(done.tokens)}  (reward {reward:g})"
            for (prompt, done), reward in zip(list(shown)[:count], rewards, strict=False)
        ]

    def _reshard(self) -> dict[str, float]:
        return self.engines.switch(verify=self._step <= 1)

    def _generate(self) -> dict[str, float]:
        job = self.plan.job
        chosen = prompts_of_step(
            self.prompts, step=self._step - 1, count=job.batch.prompts, seed=job.seed
        )
        self._batch = [prompt for prompt in chosen for _ in range(job.batch.samples)]
        rows = self.generator.rows(len(self._batch))
        seeds = [
            request_seed(job.seed, self._step, self._batch[row].index, row % job.batch.samples)
            for row in range(rows.start, rows.stop)
        ]
        mine = self._batch[rows.slice]
        self._completions = self.generator.complete(mine, job.temperature, seeds)
        return {}

    def _reward(self) -> dict[str, float]:
        mine = self._batch[self.generator.rows(len(self._batch)).slice]
        rewards = [0.0] * len(mine)
        if self.judge and not self.plan.has(Role.REWARD):
            texts = [self.tokenizer.decode(done.tokens) for done in self._completions]
            rewards = self.judge.score(mine, texts)
        like = torch.zeros(0, device=self.device)
        sequences, log_probs, rewards_of_all = self.generator.assemble(
            self._batch, self._completions, rewards, like
        )
        self._experience = Experience(
            step=self._step,
            sequences=sequences,
            rewards=rewards_of_all,
            rollout_log_probs=log_probs,
        )
        if self.plan.has(Role.REWARD):
            self._experience.rewards = self._model_rewards()
        return objectives.batch_metrics(self.experience)

    def _model_rewards(self) -> Tensor:
        """The reward model's score at the last token of each sequence, [n], on every rank."""
        sequences = self.experience.sequences
        last = sequences.lengths[:, None] - 1
        return self._score(Role.REWARD, sequences.with_room()).gather(1, last).squeeze(1)

    def _old_log_probs(self) -> dict[str, float]:
        self.experience.old_log_probs = self._score(Role.ACTOR_TRAIN)
        return {}

    def _reference_log_probs(self) -> dict[str, float]:
        self.experience.reference_log_probs = self._score(Role.REFERENCE)
        return {}

    def _values(self) -> dict[str, float]:
        self.experience.values = self._score(Role.CRITIC)
        return {}

    def _advantages(self) -> dict[str, float]:
        return objectives.estimate_advantages(self.experience, self.plan.job)

    def _update_critic(self) -> dict[str, float]:
        return self._update(Role.CRITIC, objectives.critic_objective)

    def _update_actor(self) -> dict[str, float]:
        return self._update(Role.ACTOR_TRAIN, objectives.actor_objective)

    def _score(self, role: Role, sequences: Sequences | None = None) -> Tensor:
        """A role's output for the batch, or what stands for it, [n, s - 1], on every rank."""
        sequences = sequences or self.experience.sequences
        rows = self._shard(role, Rows(0, len(sequences)))
        local = self.engines.scorer(role).score(sequences.rows(rows.start, rows.stop))
        spoken = local if self._speaks(role) else None
        shape = (len(sequences), sequences.tokens.shape[1] - 1)
        return share(spoken, rows, shape, torch.zeros(0, device=self.device))

    def _update(self, role: Role, objective: objectives.Objective) -> dict[str, float]:
        """One optimizer step a mini-batch; metrics are means over the mini-batches."""
        job = self.plan.job
        count, engine = job.batch.mini_batches, self.engines.trainer(role)
        spec = job.critic_optimizer if role is Role.CRITIC else job.optimizer
        engine.set_learning_rate(spec.lr_at(self.experience.step))
        totals: dict[str, float] = {}
        for index in range(count):
            whole = part(len(self.experience.sequences), index, count)
            rows = self._shard(role, whole)
            loss = objective(self.experience, job, whole, rows)
            sums = engine.update(self._rows(rows), loss)
            for name, value in sums.items():
                totals[name] = totals.get(name, 0.0) + value / count
        prefix = "critic" if role is Role.CRITIC else "actor"
        return {f"{prefix}/{name}": value for name, value in totals.items()}

    def _rows(self, rows: Rows) -> Sequences:
        return self.experience.sequences.rows(rows.start, rows.stop)

    def _shard(self, role: Role, whole: Rows) -> Rows:
        """This rank's data-parallel part of some rows of the batch."""
        layout = self.plan.placement(role).layout
        place = layout.coordinates(self.engines.rank)["dp"]
        inner = part(len(whole), place, layout.dp)
        return Rows(whole.start + inner.start, whole.start + inner.stop)

    def _speaks(self, role: Role) -> bool:
        """Whether this rank hands on its shard's scores: the last stage's first tensor rank."""
        layout = self.plan.placement(role).layout
        place = layout.coordinates(self.engines.rank)
        return place["tp"] == 0 and place["pp"] == layout.pp - 1
