"""The control plane: agreement, barriers with a deadline, and small messages between ranks.

Never tensors: those travel by torch.distributed. Values are what JSON can hold, and every
rank receives what JSON makes of them (tuples come back as lists; nan and inf survive).
`SingleControl` serves a world of one; `control_mpi.MPIControl` serves the rest.
"""

from __future__ import annotations

import json
import os
from typing import Any, NoReturn, Protocol


class PeerLost(RuntimeError):
    """A collective did not complete before its deadline: some rank is dead, stuck or far behind.

    `missing` are the ranks that did not arrive, as far as this rank could learn.
    """

    def __init__(self, what: str, seconds: float, missing: tuple[int, ...] = ()) -> None:
        self.what, self.seconds, self.missing = what, seconds, missing
        who = f"rank {ranks_text(missing)}" if missing else "some rank"
        super().__init__(f"{who} did not arrive at {what!r} within {seconds:g} s")


class OutOfStep(RuntimeError):
    """Two ranks stand in different collectives: they did not walk the same plan."""


class Control(Protocol):
    """What the ranks may say to each other.

    `what` names the meeting in errors. `seconds` is how long this rank waits for the others;
    None is the patience the control was built with.
    """

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    @property
    def library(self) -> str:
        """What carries the messages, with its version."""
        ...

    @property
    def awaited(self) -> tuple[int, ...]:
        """The ranks that this one waits for at this moment; may be asked from another thread."""
        ...

    def barrier(self, what: str, seconds: float | None = None) -> None:
        """Return when all ranks have called; PeerLost naming `what` after `seconds`."""
        ...

    def broadcast(
        self, value: Any, root: int = 0, *, what: str = "broadcast", seconds: float | None = None
    ) -> Any:
        """The root's value, on every rank; what the others pass is ignored."""
        ...

    def gather(
        self, value: Any, *, what: str = "gather", seconds: float | None = None
    ) -> list[Any]:
        """Every rank's value in rank order, on every rank."""
        ...

    def exchange(
        self,
        outgoing: dict[int, Any],
        sources: set[int],
        *,
        what: str = "exchange",
        seconds: float | None = None,
    ) -> dict[int, Any]:
        """Send each value to its rank and receive one from each of `sources`.

        Only the ranks concerned need to call; a rank may send to itself.
        """
        ...

    def abort(self, code: int) -> NoReturn:
        """End all ranks with this exit code."""
        ...

    def close(self) -> None:
        """Leave in good order: the last call, made by every rank of a run that went well."""
        ...


class SingleControl:
    """The control of a world of one: every meeting is complete at once."""

    rank = 0
    size = 1
    library = "none"
    awaited: tuple[int, ...] = ()

    def barrier(self, what: str, seconds: float | None = None) -> None:
        """Nobody to wait for."""

    def broadcast(
        self,
        value: Any,
        root: int = 0,
        *,
        what: str = "broadcast",  # noqa: ARG002
        seconds: float | None = None,  # noqa: ARG002
    ) -> Any:
        require_ranks({root}, 1)
        return decode(encode(value))

    def gather(
        self,
        value: Any,
        *,
        what: str = "gather",  # noqa: ARG002
        seconds: float | None = None,  # noqa: ARG002
    ) -> list[Any]:
        return [decode(encode(value))]

    def exchange(
        self,
        outgoing: dict[int, Any],
        sources: set[int],
        *,
        what: str = "exchange",
        seconds: float | None = None,
    ) -> dict[int, Any]:
        require_ranks({*outgoing, *sources}, 1)
        if sources - set(outgoing):
            raise PeerLost(what, seconds or 0.0, (0,))
        return {source: decode(encode(outgoing[source])) for source in sources}

    def abort(self, code: int) -> NoReturn:
        os._exit(code)

    def close(self) -> None:
        """Nothing is held."""


def encode(value: Any) -> bytes:
    """The bytes of a value on the wire; TypeError for what JSON cannot hold."""
    return json.dumps(value, separators=(",", ":")).encode()


def decode(data: bytes | bytearray) -> Any:
    return json.loads(data)


def require_ranks(ranks: set[int], size: int) -> None:
    """ValueError when one of the ranks is not in a world of this size."""
    strange = sorted(rank for rank in ranks if not 0 <= rank < size)
    if strange:
        raise ValueError(f"rank {ranks_text(strange)} is not in a world of {size}")


def ranks_text(ranks: tuple[int, ...] | list[int], shown: int = 8) -> str:
    """Ranks as people read them: '3', '3, 7', '0, 1, 2, 3, 4, 5, 6, 7 and 56 more'."""
    text = ", ".join(map(str, ranks[:shown]))
    return f"{text} and {len(ranks) - shown} more" if len(ranks) > shown else text
