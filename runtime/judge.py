"""A worker that applies one reward rule: a line of JSON in, a line of JSON out.

Started by `judges.py` as `python -m runtime.judge RULE BASE`; it is no rank and needs no MPI.
First it says that it is ready, or why not; then {"reward": r} or {"mistake": text} a sample.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, TextIO

from runtime.mistakes import MissingInput, RewardMistake
from runtime.prompt import Prompt
from runtime.rewards import RewardRule, load_rule

# A worker that is deep in a sample when its rank is killed must not outlive it (prctl(2)).
PR_SET_PDEATHSIG = 1


def main(name: str, base: str) -> None:
    """Serve until the input ends. What a rule prints goes to stderr, not into the answers."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        rule = load_rule(name, Path(base))
    except (MissingInput, RewardMistake) as error:
        _say(answers, {"mistake": str(error)})
        return
    _say(answers, {"ready": True})
    for line in sys.stdin:
        _say(answers, _judged(rule, json.loads(line)))


def _judged(rule: RewardRule, sample: dict[str, Any]) -> dict[str, Any]:
    prompt = Prompt(tokens=(), **sample["prompt"])
    try:
        return {"reward": rule.one(prompt, sample["response"])}
    except RewardMistake as error:
        return {"mistake": str(error)}


def _say(answers: TextIO, value: dict[str, Any]) -> None:
    print(json.dumps(value), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
