"""Work that goes on beside the steps, in a thread that meets no other rank."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Result = TypeVar("Result")

BUSY, DONE, FAILED = "busy", "done", "failed"


class Job(Generic[Result]):
    """One piece of work: done at once, or begun in a thread that ends with the process."""

    def __init__(self, work: Callable[[], Result], *, threaded: bool) -> None:
        self._work = work
        self._result: list[Result] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._do, daemon=True) if threaded else None
        if self._thread:
            self._thread.start()
        else:
            self._do()

    @property
    def state(self) -> str:
        """'busy', 'done' or 'failed'."""
        if self._thread and self._thread.is_alive():
            return BUSY
        return FAILED if self._error else DONE

    def wait(self) -> None:
        """Return when it is no longer busy."""
        if self._thread:
            self._thread.join()

    def result(self) -> Result:
        """What the work gave, once it is no longer busy; its error is raised here."""
        if self._error:
            raise self._error
        return self._result[0]

    def _do(self) -> None:
        try:
            self._result.append(self._work())
        except BaseException as error:  # torch's CheckpointException is no Exception; raised again
            self._error = error
