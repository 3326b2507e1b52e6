"""LoraSpec: low-rank adapters that are trained in place of the model's matrices."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from plans.parts import Above, Part, Positive
from plans.source import suggestion

Module = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# The matrices of a layer, in the order in which a layer uses them.
MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ALL = "all-linear"


class LoraSpec(Part):
    """W x + alpha / rank B A x with W frozen (Hu et al. 2021, eq. 3); A and B are trained.

    `rank`, `alpha` and `target_modules` are PEFT's r, lora_alpha and target_modules;
    'all-linear' are all seven matrices of a layer, as there. `adapter` is a folder that PEFT
    wrote, to start from; without it A is drawn from the job's seed and B is zero. There is no
    dropout: the rollout samples from the policy that learns.
    """

    rank: Positive = 16
    alpha: Above = 32.0
    target_modules: Annotated[tuple[Module, ...], Field(min_length=1)] = MODULES  # type: ignore[assignment]
    adapter: str | None = None

    @field_validator("target_modules", mode="before")
    @classmethod
    def _known_modules(cls, value: Any) -> Any:
        if value == ALL:
            return MODULES
        names = [value] if isinstance(value, str) else value
        for name in names if isinstance(names, list | tuple) else ():
            if name not in MODULES:
                hint = suggestion(str(name), list(MODULES))
                known = f"known: {ALL}, {', '.join(MODULES)}"
                raise ValueError(f"no matrix is called {name!r}{hint}; {known}")
        return names

    @field_validator("target_modules")
    @classmethod
    def _in_order(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Each once, in the order of a layer, so that one set of them is one plan."""
        return tuple(name for name in MODULES if name in value)

    @property
    def scale(self) -> float:
        """What the product of the two matrices is multiplied with."""
        return self.alpha / self.rank
