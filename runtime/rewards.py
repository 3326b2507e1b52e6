"""Rewards by rule: a number for each response, by rules of ours or a function in the user's file.

Rules that are quick and ours are applied in place. What runs foreign code or may take long is
applied by workers (`judges.py`), each sample within a time limit.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, SupportsFloat

from runtime.mistakes import MissingInput, RewardMistake
from runtime.prompt import Prompt
from runtime.rules import RULES, RewardFunction

# The parameters of verl's reward functions, in their order.
VERL = ("data_source", "solution_str", "ground_truth", "extra_info")


@dataclass(slots=True, kw_only=True)
class RewardRule:
    """A reward function and its name in the job file."""

    name: str
    function: RewardFunction
    timeouts: int = 0

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[float]:
        """The reward of each response to its prompt.

        Raises RewardMistake naming rule, row and exception when the function fails, or when
        it returns anything but a finite number.
        """
        return [self.one(*pair) for pair in zip(prompts, responses, strict=True)]

    def one(self, prompt: Prompt, response: str) -> float:
        place = place_text(self.name, prompt, response)
        try:
            value: Any = self.function(prompt, response)
            reward = float(value) if isinstance(value, SupportsFloat) else math.nan
        # The user's code may raise anything; all of it is theirs to mend.
        except Exception as error:
            raise RewardMistake(f"{place}: {type(error).__name__}: {error}") from error
        if not math.isfinite(reward):
            raise RewardMistake(f"{place}: returned {value!r}; return a finite number")
        return reward


def place_text(name: str, prompt: Prompt, response: str) -> str:
    """How a mistake of a rule is placed: the rule, the row, and the response's beginning."""
    return f"reward {name}: row {prompt.index}, response {response[:40]!r}"


def load_rule(name: str, base: Path) -> RewardRule:
    """The rule of that name, ours or `path.py:function` under `base`, applied in this process.

    Raises MissingInput when there is no such file, RewardMistake when it cannot be loaded or
    has no such function. The file's code is run.
    """
    if name in RULES:
        return RewardRule(name=name, function=RULES[name].function)
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
    return RewardRule(name=name, function=_adapted(function))


def runs_apart(name: str) -> bool:
    """Whether a rule runs in workers: the user's own, and those of ours that may take long."""
    return name not in RULES or RULES[name].apart


def _adapted(function: Callable[..., float]) -> RewardFunction:
    """The user's function on our arguments: verl's four when it names them, else our three.

    verl's functions may also return a dictionary with the number under "score".
    """
    named = set(inspect.signature(function).parameters)
    if not {"solution_str", "ground_truth"} <= named:
        return lambda prompt, response: function(prompt.text, response, prompt.answer)

    def verl(prompt: Prompt, response: str) -> float:
        extra = json.loads(prompt.extra) if prompt.extra else None
        values = (prompt.source, response, prompt.answer, extra)
        found = function(**dict(zip(VERL, values, strict=True)))
        return found["score"] if isinstance(found, dict) else found

    return verl


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
