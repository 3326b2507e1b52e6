"""A short program asked a question: its exit code and what it prints."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence

from plans.values import frozen


@frozen
class Answer:
    """How a program ended, and what it printed on both streams."""

    code: int
    text: str


def ask(command: Sequence[str], environment: Mapping[str, str], *, seconds: float) -> Answer:
    """Run a program to its end; OSError when there is none, TimeoutExpired when it is too slow."""
    done = subprocess.run(
        command,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=seconds,
        check=False,
    )
    return Answer(code=done.returncode, text=done.stdout)


def last_line(text: str) -> str:
    """The last line of what a program printed."""
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it says nothing"
