"""A short program asked a question: its exit code and what it prints."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence

from plans.values import frozen


@frozen
class Answer:
    """How a program ended, and what it printed; `errors` where its two streams were kept apart."""

    code: int
    text: str
    errors: str = ""


def answer_of(
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    *,
    seconds: float,
    apart: bool = False,
) -> Answer:
    """Run a program to its end, in this environment or in our own.

    OSError when there is none, TimeoutExpired when it takes more seconds. `apart`: what it says
    on its error stream by itself, instead of between the rest.
    """
    done = subprocess.run(
        command,
        env=None if environment is None else dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if apart else subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=seconds,
        check=False,
    )
    return Answer(code=done.returncode, text=done.stdout, errors=done.stderr or "")


def last_line(text: str) -> str:
    """The last line of what a program printed."""
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it says nothing"
