"""The control plane: agreement, barriers with a deadline, and small messages between ranks.

Never tensors: those travel by torch.distributed. Values are what JSON can hold.
`SingleControl` serves a world of one; `control_mpi.MPIControl` serves the rest.
"""

from __future__ import annotations

from typing import Any, Protocol


class PeerLost(RuntimeError):
    """A collective did not complete before its deadline: some rank is dead, stuck or far behind."""


class Control(Protocol):
    """What the ranks may say to each other."""

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    def barrier(self, what: str, seconds: float) -> None:
        """Return when all ranks have called; PeerLost naming `what` after `seconds`."""
        ...

    def broadcast(self, value: Any, root: int = 0) -> Any:
        """The root's value, on every rank."""
        ...

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value in rank order, on every rank."""
        ...

    def exchange(self, outgoing: dict[int, Any], sources: set[int]) -> dict[int, Any]:
        """Send each value to its rank and receive one from each of `sources`."""
        ...

    def abort(self, code: int) -> None:
        """End all ranks with this exit code."""
        ...
