"""Texts that are compared with a file, word for word.

To accept a change, run `python -m tests.golden.check`, which writes every text anew, and
read the difference.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

FOLDER = Path(__file__).parent


def golden(name: str) -> str:
    return (FOLDER / name).read_text()


def write_all(texts: dict[str, Callable[[], str]]) -> None:
    for name, make in texts.items():
        (FOLDER / name).write_text(make())


if __name__ == "__main__":
    from tests.plans.reports.test_screen import TEXTS
    from tests.slurm.test_script import SCRIPTS

    write_all({**TEXTS, **SCRIPTS})
