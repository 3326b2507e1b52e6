"""Waiting for what another process is about to do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")
PATIENCE_SECONDS = 200.0
POLL_SECONDS = 0.05


def eventually(look: Callable[[], Found], what: str, seconds: float = PATIENCE_SECONDS) -> Found:
    """The first true value that `look` returns; AssertionError naming `what` when none comes."""
    limit = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < limit, f"{what} did not happen within {seconds:g} s"
        time.sleep(POLL_SECONDS)
    return found
