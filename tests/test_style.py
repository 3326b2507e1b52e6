"""The house's own tools agree: ruff and mypy, with the settings of pyproject.toml."""

import subprocess
import sys

import pytest

from tests.runs import ROOT


def said(*command: str) -> str:
    """What a tool prints about the whole tree; empty when it ends well."""
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_ruff_finds_nothing():
    assert not said("ruff", "check", ".")


def test_every_file_is_formatted():
    assert not said("ruff", "format", "--check", ".")


@pytest.mark.slow
def test_mypy_finds_nothing():
    assert not said("mypy")
