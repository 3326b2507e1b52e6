"""Messages of the weight switch: buckets packed, sent and spread, two rounds at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from plans.reshard import ROUNDS_IN_FLIGHT
from plans.transfer import Bucket, Round, Transfer
from plans.values import frozen
from runtime.copying import Copies

View = Callable[[Transfer], Tensor]


@frozen
class Message:
    """A bucket on the wire: a flat tensor, and the copies that pack it or spread it."""

    peer: int
    wire: Tensor
    copies: Copies


@frozen
class Exchange:
    """What a rank sends and receives in one round."""

    sending: Message | None
    receiving: Message | None

    def post(self, group: dist.ProcessGroup) -> list[dist.Work]:
        """Pack what is sent and start both messages."""
        if self.sending:
            self.sending.copies.run()
        ways = ((dist.isend, self.sending), (dist.irecv, self.receiving))
        operations = [
            dist.P2POp(way, message.wire, dist.get_global_rank(group, message.peer), group)
            for way, message in ways
            if message
        ]
        return dist.batch_isend_irecv(operations)

    def finish(self, works: list[dist.Work]) -> None:
        """Wait for both messages and put what arrived where it belongs."""
        for work in works:
            work.wait()
        if self.receiving:
            self.receiving.copies.run()


@frozen
class Exchanges:
    """The rounds of a rank, and the buffers they share: two each way, as large as the largest."""

    rounds: list[Exchange]
    buffers: list[Tensor]

    @property
    def received_bytes(self) -> int:
        return sum(step.receiving.wire.nbytes for step in self.rounds if step.receiving)

    @property
    def sent_bytes(self) -> int:
        return sum(step.sending.wire.nbytes for step in self.rounds if step.sending)

    @property
    def held_bytes(self) -> int:
        """Memory held beside the parameters."""
        messages = [one for step in self.rounds for one in (step.sending, step.receiving) if one]
        tables = sum(message.copies.table_bytes for message in messages)
        return tables + sum(buffer.nbytes for buffer in self.buffers)

    def run(self, group: dist.ProcessGroup | None, meanwhile: Callable[[], None]) -> None:
        """All rounds: one is packed while the one before is on its way, in the other buffers.

        `meanwhile` is done while the first travels.
        """
        known = group or dist.group.WORLD
        travelling = self.rounds[0].post(known) if self.rounds and known else []
        meanwhile()
        for number, step in enumerate(self.rounds, start=1):
            assert known is not None
            following = self.rounds[number].post(known) if number < len(self.rounds) else []
            step.finish(travelling)
            travelling = following


def exchanges(rounds: Sequence[Round], here: View, there: View) -> Exchanges:
    """The rounds over the parameters that `here` (training) and `there` (rollout) show."""
    out = [_parcel(step.send, here) for step in rounds]
    into = [_parcel(step.receive, there) for step in rounds]
    leaving, arriving = _buffers(out), _buffers(into)
    return Exchanges(
        rounds=[
            Exchange(
                sending=_message(sent, leaving, number, packs=True),
                receiving=_message(received, arriving, number, packs=False),
            )
            for number, (sent, received) in enumerate(zip(out, into, strict=True))
        ],
        buffers=leaving + arriving,
    )


# A peer, and the views of parameters that go to it or come from it.
_Parcel = tuple[int, list[Tensor]]


def _parcel(bucket: Bucket | None, view: View) -> _Parcel | None:
    return (bucket.peer, [view(one) for one in bucket.transfers]) if bucket else None


def _buffers(parcels: Sequence[_Parcel | None]) -> list[Tensor]:
    """Room for the largest parcel, once for each of the two rounds that travel at a time."""
    packed = [views for _, views in filter(None, parcels)]
    if not packed:
        return []
    elements = max(sum(view.numel() for view in views) for views in packed)
    return [packed[0][0].new_empty(elements) for _ in range(min(ROUNDS_IN_FLIGHT, len(parcels)))]


def _message(
    parcel: _Parcel | None, buffers: list[Tensor], number: int, *, packs: bool
) -> Message | None:
    if parcel is None:
        return None
    peer, views = parcel
    sizes = [view.numel() for view in views]
    wire = buffers[number % len(buffers)][: sum(sizes)]
    pieces = zip(torch.split(wire, sizes), views, strict=True)
    slots = [piece.view(view.shape) for piece, view in pieces]
    copies = Copies(slots, views) if packs else Copies(views, slots)
    return Message(peer=peer, wire=wire, copies=copies)
