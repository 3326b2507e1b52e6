"""One RL step, phase by phase. The plan gives the order; this file says what each phase does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from plans.dataflow import Role
from plans.plan import Plan
from runtime.batch import Experience
from runtime.checkpoint import Saved
from runtime.credit import estimate_advantages
from runtime.learner import Learner
from runtime.objectives import ActorObjective, CriticObjective
from runtime.prompt import Prompt
from runtime.sampling import Sampler
from runtime.shaping import adapted_weight


@dataclass(slots=True, kw_only=True)
class LearningWork:
    """What the phases of a step do that learn from an experience, wherever it comes from."""

    plan: Plan
    learner: Learner
    kl_weight: float
    _step: int = 0
    _experience: Experience | None = None

    def phase(self, name: str, step: int) -> dict[str, float]:
        """Do one phase of a step; returns what it measured, by metric name."""
        self._step = step
        return self.phases()[name]()

    def phases(self) -> dict[str, Callable[[], dict[str, float]]]:
        """What each phase does, by its name."""
        return {
            "old_log_prob": self._old_log_probs,
            "ref": self._reference_log_probs,
            "values": self._values,
            "adv": self._advantages,
            "update_critic": self._update_critic,
            "update_actor": self._update_actor,
        }

    def settle(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Move the weight of the KL term for the next step, if it has a target."""
        kl = self.plan.job.algorithm.kl
        if kl is None or kl.target is None:
            return {}
        self.kl_weight = adapted_weight(
            self.kl_weight,
            metrics["actor/kl"],
            target=kl.target,
            sequences=len(self.experience.sequences),
            horizon=kl.horizon,
        )
        return {"actor/kl_weight": self.experience.kl_weight}

    @property
    def experience(self) -> Experience:
        assert self._experience is not None, "the reward phase makes the experience"
        return self._experience

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
        return estimate_advantages(self.experience, self.plan.job)

    def _update_critic(self) -> dict[str, float]:
        objective = CriticObjective(experience=self.experience, job=self.plan.job)
        return self.learner.update(
            Role.CRITIC, self.experience.sequences, objective, self.experience.step
        )

    def _update_actor(self) -> dict[str, float]:
        objective = ActorObjective(experience=self.experience, job=self.plan.job)
        return self.learner.update(
            Role.ACTOR_TRAIN, self.experience.sequences, objective, self.experience.step
        )

    def _score(self, role: Role) -> Tensor:
        return self.learner.score(role, self.experience.sequences)


@dataclass(slots=True, kw_only=True)
class StepWork(LearningWork):
    """What the phases of a step do on this rank; `walk` calls `phase` in the plan's order."""

    sampler: Sampler
    _batch: list[Prompt] = field(default_factory=list)

    def phases(self) -> dict[str, Callable[[], dict[str, float]]]:
        """What each phase does, by its name."""
        return {
            "reshard": self._reshard,
            "gen": self._generate,
            "gen_max": self._generate_greedily,
            "reward": self._reward,
            **LearningWork.phases(self),
        }

    def again(self, name: str) -> str | None:
        """Dynamic sampling generates and judges once more until enough groups teach something."""
        return "gen" if name == "reward" and self._experience is None else None

    @property
    def response_tokens(self) -> float:
        """Response tokens of the step, over all ranks, those of dropped groups included."""
        return float(self.sampler.generated_tokens)

    @property
    def kept(self) -> Mapping[Role, Saved]:
        """What a checkpoint holds beside the models."""
        return {}

    def fill(self, step: int) -> None:
        """What is done once before the step after `step`: nothing."""

    def state(self) -> dict[str, float]:
        """What a resumed run goes on with, beside the weights."""
        return {"drawn": self.sampler.drawn, "kl_weight": self.kl_weight}

    def restore(self, state: Mapping[str, float]) -> None:
        """Take over what `state` gave."""
        self.sampler.drawn, self.kl_weight = int(state["drawn"]), state["kl_weight"]

    def samples(self, count: int) -> list[str]:
        """A few prompts of the step with their responses and rewards, for a person to read."""
        sequences, rewards = self.experience.sequences, self.experience.rewards.tolist()
        return [
            f"{prompt.text}{self.sampler.text(sequences, row)}  (reward {rewards[row]:g})"
            for row, prompt in enumerate(self._batch[:count])
        ]

    def _reshard(self) -> dict[str, float]:
        self.sampler.begin()
        self._experience = None
        return self.learner.engines.switch(verify=self._step <= 1)

    def _generate(self) -> dict[str, float]:
        self.sampler.generate()
        return {}

    def _generate_greedily(self) -> dict[str, float]:
        self.sampler.generate_greedily()
        return {}

    def _reward(self) -> dict[str, float]:
        self.sampler.reward()
        if self.sampler.wants_more:
            return {}
        self._experience, self._batch = self.sampler.experience(self._step, self.kl_weight)
        self._experience.sampled_by(self._step - 1)
        return self.sampler.metrics(self.experience)
