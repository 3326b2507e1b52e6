"""What every part of a job file is made of: a frozen model that refuses unknown keys; numbers.

Files that define parts do without `from __future__ import annotations`: pydantic would have to
compile every annotation again, 5 ms of an estimate.
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

NAME_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$"
NAME_TEXT = "up to 64 letters, digits and . _ -, not starting with . or -"
TIME_PATTERN = r"^(\d{1,3}-)?\d{1,2}:[0-5]\d:[0-5]\d$"
TIME_TEXT = "a time such as '12:00:00' or '2-00:00:00'"

Name = Annotated[str, Field(pattern=NAME_PATTERN, description=NAME_TEXT)]
Time = Annotated[str, Field(pattern=TIME_PATTERN, description=TIME_TEXT)]
Positive = Annotated[int, Field(gt=0, strict=True)]
Natural = Annotated[int, Field(ge=0, strict=True)]
Share = Annotated[float, Field(gt=0, le=1)]
Rate = Annotated[float, Field(gt=0, lt=1)]
Weight = Annotated[float, Field(ge=0)]
Above = Annotated[float, Field(gt=0)]


class Part(BaseModel):
    """A frozen piece of the job file; unknown keys are mistakes.

    `defer_build`: a part is only ever validated inside the whole job, so that its own
    validator, a millisecond each, is not built.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True, defer_build=True
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_control_characters(cls, value: Any) -> Any:
        if isinstance(value, str) and any(
            ord(letter) < 32 or ord(letter) == 127 for letter in value
        ):
            raise ValueError("control characters are not accepted")
        return value


def empty() -> Any:
    """A part that was left out: its defaults, filled in where the whole job is validated."""
    return Field(default={})
