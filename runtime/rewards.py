"""Rewards by rule: a number for a response, by a rule of ours or a function in the user's file."""

from __future__ import annotations

import importlib.util
import math
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any, SupportsFloat

from runtime.batch import Prompt
from runtime.mistakes import MissingInput, RewardMistake

# (prompt, response, answer) -> reward
RewardFunction = Callable[[str, str, str], float]
# "1,234" is one number and "3,4" are two; the minus of "10-7" is no sign.
NUMBER = re.compile(r"(?:(?<!\d)[-+])?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)", re.A)


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardRule:
    """A reward function and its name in the job file."""

    name: str
    function: RewardFunction

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[float]:
        """The reward of each response to its prompt.

        Raises RewardMistake naming rule, row and exception when the function fails, or when
        it returns anything but a finite number.
        """
        return [self._one(*pair) for pair in zip(prompts, responses, strict=True)]

    def _one(self, prompt: Prompt, response: str) -> float:
        place = f"reward {self.name}: row {prompt.index}, response {response[:40]!r}"
        try:
            value: Any = self.function(prompt.text, response, prompt.answer)
            reward = float(value) if isinstance(value, SupportsFloat) else math.nan
        # The user's code may raise anything; all of it is theirs to mend.
        except Exception as error:
            raise RewardMistake(f"{place}: {type(error).__name__}: {error}") from error
        if not math.isfinite(reward):
            raise RewardMistake(f"{place}: returned {value!r}; return a finite number")
        return reward


def load_reward(name: str, base: Path) -> RewardRule:
    """The rule a job file names: 'exact', 'number', 'length', or 'path.py:function' under `base`.

    Raises MissingInput when there is no such file, RewardMistake when it cannot be loaded or
    has no such function. The file's code is run.
    """
    if name in RULES:
        return RewardRule(name=name, function=RULES[name])
    file, _, function_name = name.rpartition(":")
    path = base / file
    if not path.is_file():
        raise MissingInput(f"reward {name}: {path}: no such file")
    function = getattr(_module(name, path), function_name, None)
    if not callable(function):
        raise RewardMistake(
            f"reward {name}: {path} has no function {function_name!r}; "
            f"define {function_name}(prompt, response, answer) -> float"
        )
    return RewardRule(name=name, function=function)


def exact(prompt: str, response: str, answer: str) -> float:  # noqa: ARG001
    """1 when the response is the answer, white space around them aside."""
    return float(response.strip() == answer.strip())


def number(prompt: str, response: str, answer: str) -> float:  # noqa: ARG001
    """1 when the last number of the response equals the last number of the answer."""
    given, wanted = _last_number(response), _last_number(answer)
    if wanted is None:
        raise ValueError(f"the answer {answer!r} holds no number")
    return float(given is not None and given == wanted)


def length(prompt: str, response: str, answer: str) -> float:  # noqa: ARG001
    """1 when the response has as many characters as the answer says, less with the distance.

    1 - |length - target| / max(length, target).
    """
    target = _last_number(answer)
    if target is None or target < 1:
        raise ValueError(f"the answer {answer!r} holds no positive number of characters")
    given = Decimal(len(response))
    return float(1 - abs(given - target) / max(given, target))


RULES: dict[str, RewardFunction] = {"exact": exact, "number": number, "length": length}


def _last_number(text: str) -> Decimal | None:
    found = NUMBER.findall(text)
    return Decimal(found[-1].replace(",", "")) if found else None


def _module(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"rlplan_reward_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise RewardMistake(f"reward {name}: {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses in the user's file look their module up by name while it is loaded.
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    # The user's code may raise anything while it is loaded, SyntaxError included.
    except Exception as error:
        raise RewardMistake(f"reward {name}: {path}: {type(error).__name__}: {error}") from error
    return module
