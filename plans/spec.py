"""JobSpec: the validated job file. Its defaults stand here and in the parts it is made of.

What a user leaves out is either a default or decided by the planner; `None` means "the
planner decides", and in `algorithm` also that the algorithm has no such thing.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from plans.algorithm import AlgorithmSpec
from plans.inputs import DataSpec, ModelChoice, RewardSpec
from plans.lora import LoraSpec
from plans.mistakes import mistakes
from plans.optimizer import CriticOptimizerSpec, OptimizerSpec
from plans.parts import (
    Above,
    Name,
    Natural,
    Part,
    Positive,
    control_characters,
    empty,
    no_plugins,
)
from plans.resources import ClusterSpec, RoleSpecs, SlurmSpec
from plans.rules import broken_rules
from plans.source import Document, SpecError, read_yaml


class BatchSpec(Part):
    """Prompts a step, samples a prompt, and how the batch is learned from.

    It is cut into `mini_batches`, one optimizer step each, and gone through `epochs` times.
    A micro-batch is `micro_samples` sequences padded to the longest, or sequences packed back
    to back up to `micro_tokens` tokens.
    """

    prompts: Positive
    samples: Positive = 1
    mini_batches: Positive = 1
    epochs: Positive = 1
    micro_samples: Positive | None = None
    micro_tokens: Positive | None = None

    @property
    def sequences(self) -> int:
        return self.prompts * self.samples

    @property
    def optimizer_steps(self) -> int:
        return self.mini_batches * self.epochs


class TokenSpec(Part):
    """The longest prompt and the longest response, and what they are on average, in tokens."""

    prompt: Positive
    response: Positive
    mean_prompt: Above | None = None
    mean_response: Above | None = None

    @field_validator("mean_prompt", "mean_response")
    @classmethod
    def _within_the_limit(cls, value: float | None, info: ValidationInfo) -> float | None:
        limit = str(info.field_name).removeprefix("mean_")
        if value is not None and value > info.data.get(limit, value):
            raise ValueError(f"the mean is more than the limit, tokens.{limit}")
        return value


class SupervisedSpec(Part):
    """A supervised warm-up before the first RL step, on `data` or else on the training answers."""

    steps: Positive
    data: str | None = None
    batch: Positive = 64
    lr: Above = 1e-3


class EvalSpec(Part):
    """Greedy accuracy on held-out data: before the RL steps, after, and every so often."""

    every: Natural = 0


class CheckpointSpec(Part):
    """Steps between checkpoints (None: the planner decides) and how many are kept.

    With `background` a copy on the host is written while the next steps go on.
    """

    every: Positive | None = None
    keep: Annotated[int, Field(ge=2)] = 2
    background: bool = False


class ExperienceSpec(Part):
    """How many of the newest steps keep their batch on disk; 0 writes none."""

    keep: Natural = 2


class JobSpec(Part):
    """One post-training run, as the user wrote it."""

    name: Name
    model: ModelChoice
    algorithm: AlgorithmSpec
    data: DataSpec
    reward: RewardSpec = empty()
    batch: BatchSpec
    tokens: TokenSpec
    steps: Positive
    temperature: Annotated[float, Field(gt=0, le=10)] = 1.0
    supervised: SupervisedSpec | None = None
    lora: LoraSpec | None = None
    optimizer: OptimizerSpec = empty()
    critic_optimizer: CriticOptimizerSpec = empty()
    evaluate: EvalSpec = empty()
    checkpoint: CheckpointSpec = empty()
    experience: ExperienceSpec = empty()
    precision: Literal["fp32", "bf16"] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31, strict=True)] = 0
    roles: RoleSpecs = empty()
    cluster: ClusterSpec = empty()
    slurm: SlurmSpec = empty()

    @model_validator(mode="before")
    @classmethod
    def _plain_text(cls, value: Any) -> Any:
        if broken := list(control_characters(value)):
            raise ValueError("\n".join(broken))
        return value

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

    @field_validator("batch", mode="before")
    @classmethod
    def _pairs(cls, value: Any, info: ValidationInfo) -> Any:
        """A row of dpo is two sequences."""
        algorithm = info.data.get("algorithm")
        if isinstance(value, dict) and algorithm and algorithm.name == "dpo":
            return {"samples": 2, **value}
        return value

    @model_validator(mode="after")
    def _one_job(self) -> "JobSpec":
        """What one key says about another; all that is wrong, a line each."""
        broken = list(broken_rules(self))
        if broken:
            raise ValueError("\n".join(broken))
        return self

    @property
    def rows_together(self) -> int:
        """Sequences that belong in one micro-batch: the chosen and the rejected of a pair."""
        return 2 if self.algorithm.name == "dpo" else 1

    @property
    def micro_parts(self) -> dict[str, Any]:
        """The parts that may say how sequences are cut into micro-batches, by their key."""
        roles = {f"roles.{role}": fixed for role, fixed in self.roles.items()}
        return {"batch": self.batch, **roles}

    @property
    def needs_rollout(self) -> bool:
        return self.algorithm.generates

    @property
    def needs_reference(self) -> bool:
        return self.algorithm.kl_weight > 0 or self.algorithm.name == "dpo"

    @property
    def has_reference_model(self) -> bool:
        """Whether the reference is a model of its own: with adapters it is the actor's base."""
        return self.needs_reference and self.lora is None

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
        with no_plugins():
            return JobSpec.model_validate(document.data)
    except ValidationError as error:
        raise SpecError(mistakes(document, error, JobSpec)) from None
