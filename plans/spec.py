"""JobSpec: the validated job file. Every default of the project stands here.

What a user leaves out is either a default below or decided by the planner; `None`
means "the planner decides".
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from plans.mistakes import mistakes
from plans.source import Document, SpecError, read_yaml, suggestion

NAME_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$"
NAME_TEXT = "up to 64 letters, digits and . _ -, not starting with . or -"
TIME_PATTERN = r"^(\d{1,3}-)?\d{1,2}:[0-5]\d:[0-5]\d$"
TIME_TEXT = "a time such as '12:00:00' or '2-00:00:00'"
RULE_REWARDS = ("exact", "number", "length")

Positive = Annotated[int, Field(gt=0, strict=True)]
Natural = Annotated[int, Field(ge=0, strict=True)]
Share = Annotated[float, Field(gt=0, le=1)]
Rate = Annotated[float, Field(gt=0, lt=1)]


class Part(BaseModel):
    """A frozen piece of the job file; unknown keys are mistakes."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_control_characters(cls, value: Any) -> Any:
        if isinstance(value, str) and any(
            ord(letter) < 32 or ord(letter) == 127 for letter in value
        ):
            raise ValueError("control characters are not accepted")
        return value


class ModelChoice(Part):
    """A folder with `config.json`; weights are read from it, or drawn at random from a seed."""

    path: str
    weights: Literal["load", "random"] = "load"


class KLSpec(Part):
    """The pull towards the reference policy: its weight, place and estimator (Schulman 2020)."""

    weight: Annotated[float, Field(ge=0)] = 0.0
    place: Literal["loss", "reward"] = "loss"
    estimator: Literal["k1", "k2", "k3"] = "k3"


class AlgorithmSpec(Part):
    """The RL algorithm and its constants; names and defaults as in the papers."""

    name: Literal["grpo", "ppo"]
    clip: Rate = 0.2
    kl: KLSpec = KLSpec()
    gamma: Share = 1.0
    gae_lambda: Share = 0.95
    value_clip: Annotated[float, Field(gt=0)] = 0.2
    entropy_weight: Annotated[float, Field(ge=0)] = 0.0
    normalize_by_std: bool = True


class DataSpec(Part):
    """JSON-lines files of {"prompt": ..., "answer": ...}."""

    train: str
    eval: str | None = None


class RewardSpec(Part):
    """What judges a response: a rule by name or `path.py:function`, or a reward model's folder.

    With both, the model gives the reward that is learned from and the rule the held-out accuracy.
    """

    rule: str | None = None
    model: str | None = None

    @field_validator("rule")
    @classmethod
    def _known_rule(cls, value: str | None) -> str | None:
        if value is None or value in RULE_REWARDS or ":" in value:
            return value
        hint = suggestion(value, list(RULE_REWARDS))
        raise ValueError(
            f"no such rule; known: {', '.join(RULE_REWARDS)}, or path.py:function{hint}"
        )

    @model_validator(mode="after")
    def _something_judges(self) -> RewardSpec:
        if self.rule is None and self.model is None:
            raise ValueError("give a rule, a model, or both")
        return self


class BatchSpec(Part):
    """Prompts a step, samples a prompt, and how many optimizer steps the batch is cut into."""

    prompts: Positive
    samples: Positive = 1
    mini_batches: Positive = 1
    micro_samples: Positive | None = None

    @property
    def sequences(self) -> int:
        return self.prompts * self.samples


class TokenSpec(Part):
    """The longest prompt and the longest response, in tokens."""

    prompt: Positive
    response: Positive


class OptimizerSpec(Part):
    """AdamW (Loshchilov and Hutter 2019) with gradient clipping by global norm."""

    lr: Annotated[float, Field(gt=0)] = 1e-6
    betas: tuple[Rate, Rate] = (0.9, 0.999)
    eps: Annotated[float, Field(gt=0)] = 1e-8
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    clip_grad: Annotated[float, Field(gt=0)] = 1.0
    warmup_steps: Natural = 0

    def lr_at(self, step: int) -> float:
        """The rate of a step (from 1): a linear rise over `warmup_steps`, then constant."""
        return self.lr * min(1.0, step / self.warmup_steps) if self.warmup_steps else self.lr


class SupervisedSpec(Part):
    """A supervised warm-up before the first RL step, on `data` or else on the training answers."""

    steps: Positive
    data: str | None = None
    batch: Positive = 64
    lr: Annotated[float, Field(gt=0)] = 1e-3


class EvalSpec(Part):
    """Greedy accuracy on held-out data: before the RL steps, after, and every so often."""

    every: Natural = 0


class CheckpointSpec(Part):
    """Steps between checkpoints (None: the planner decides) and how many are kept."""

    every: Positive | None = None
    keep: Annotated[int, Field(ge=2)] = 2


class ExperienceSpec(Part):
    """How many of the newest steps keep their batch on disk; 0 writes none."""

    keep: Natural = 2


class TrainRoleSpec(Part):
    """What the user fixes of a trained or scored role; the planner decides the rest."""

    tp: Positive | None = None
    pp: Positive | None = None
    dp: Positive | None = None


class RolloutRoleSpec(Part):
    """What the user fixes of the rollout; the planner decides the rest."""

    tp: Positive | None = None
    kv_cache_gib: Annotated[float, Field(gt=0)] | None = None
    concurrency: Positive | None = None


class RoleSpecs(Part):
    actor_train: TrainRoleSpec = TrainRoleSpec()
    actor_rollout: RolloutRoleSpec = RolloutRoleSpec()
    critic: TrainRoleSpec = TrainRoleSpec()
    reference: TrainRoleSpec = TrainRoleSpec()


class ClusterSpec(Part):
    """Hardware by name (see plans/hardware) and how much of it; `ranks` defaults to full nodes."""

    hardware: str = "cpu"
    nodes: Positive = 1
    ranks: Positive | None = None


class SlurmSpec(Part):
    """What the batch queue wants to know."""

    account: str | None = None
    partition: str | None = None
    qos: str | None = None
    time: Annotated[str, Field(pattern=TIME_PATTERN, description=TIME_TEXT)] = "24:00:00"

    @field_validator("time", mode="before")
    @classmethod
    def _quoted(cls, value: Any) -> Any:
        if isinstance(value, int):
            raise ValueError('YAML reads an unquoted time as a number; write time: "12:00:00"')
        return value


class JobSpec(Part):
    """One RL post-training run, as the user wrote it."""

    name: Annotated[str, Field(pattern=NAME_PATTERN, description=NAME_TEXT)]
    model: ModelChoice
    algorithm: AlgorithmSpec
    data: DataSpec
    reward: RewardSpec
    batch: BatchSpec
    tokens: TokenSpec
    steps: Positive
    temperature: Annotated[float, Field(gt=0, le=10)] = 1.0
    supervised: SupervisedSpec | None = None
    optimizer: OptimizerSpec = OptimizerSpec()
    critic_optimizer: OptimizerSpec = OptimizerSpec(lr=1e-5)
    evaluate: EvalSpec = EvalSpec()
    checkpoint: CheckpointSpec = CheckpointSpec()
    experience: ExperienceSpec = ExperienceSpec()
    precision: Literal["fp32", "bf16"] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31, strict=True)] = 0
    roles: RoleSpecs = RoleSpecs()
    cluster: ClusterSpec = ClusterSpec()
    slurm: SlurmSpec = SlurmSpec()

    @field_validator("model", mode="before")
    @classmethod
    def _model_by_path(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value

    @field_validator("reward", mode="before")
    @classmethod
    def _reward_by_rule(cls, value: Any) -> Any:
        return {"rule": value} if isinstance(value, str) else value

    @field_validator("algorithm", mode="before")
    @classmethod
    def _algorithm_by_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _whole_groups(self) -> JobSpec:
        if self.batch.sequences % self.batch.mini_batches:
            raise ValueError(
                f"batch: {self.batch.prompts} prompts x {self.batch.samples} samples do not divide "
                f"into {self.batch.mini_batches} mini_batches"
            )
        if self.data.eval and self.reward.rule is None:
            raise ValueError("data.eval: held-out accuracy needs a rule; give reward.rule too")
        if self.algorithm.name == "grpo" and self.batch.samples < 2:
            raise ValueError("batch.samples: grpo compares samples of one prompt; use at least 2")
        return self

    @property
    def needs_reference(self) -> bool:
        return self.algorithm.kl.weight > 0

    @property
    def needs_critic(self) -> bool:
        return self.algorithm.name == "ppo"


def load(path: str | Path) -> JobSpec:
    """The job file at `path`, validated.

    Raises SpecError with one line a mistake: file, line, key, reason and remedy.
    """
    return parse(read_yaml(Path(path)))


def parse(document: Document) -> JobSpec:
    """A job from a YAML document already read."""
    try:
        return JobSpec.model_validate(document.data)
    except ValidationError as error:
        raise SpecError(mistakes(document, error, JobSpec)) from None
