"""events.jsonl: what happened in a run and when, one JSON object a line."""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path
from typing import Any, TextIO

from runtime.files import FILE_MODE

EVENTS = "events.jsonl"


class EventLog:
    """The events of a run, appended by rank 0; on the other ranks (no folder) it writes nothing.

    Kinds: start, dropped, resume, supervised, evaluate, checkpoint, checkpoint_problem,
    straggler, stop, done.
    """

    def __init__(self, run_folder: Path | None) -> None:
        self._file = open_lines(run_folder / EVENTS) if run_folder else None

    def event(self, kind: str, **fields: Any) -> None:
        """Append {"unix_seconds": ..., "event": kind, ...}; fields are what JSON can hold."""
        if self._file:
            row = {"unix_seconds": round(time.time(), 3), "event": kind, **fields}
            self._file.write(json.dumps(row) + "\n")

    def problem(self, kind: str, reason: str, **fields: Any) -> None:
        """An event that a person should see: it is also a warning in the log of rank 0."""
        if self._file:
            logging.getLogger("rlplan").warning(reason)
            self.event(kind, reason=reason, **fields)

    def close(self) -> None:
        if self._file:
            self._file.close()


def open_lines(path: Path) -> TextIO:
    """A text file to append whole lines to; each is handed to the system as it ends."""
    number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, FILE_MODE)
    return os.fdopen(number, "a", buffering=1, encoding="utf-8")
