"""What one rank moves in the weight switch: aliases, copies, and buckets in rounds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from plans.proof import Proof
from plans.values import frozen


@frozen
class Transfer:
    """Rows of one tensor that move from a training parameter into a rollout parameter.

    Along `dim`, [source_offset, source_offset + length) of `source` on `source_rank`
    becomes [destination_offset, ...) of `destination` on `destination_rank`.
    """

    source_rank: int
    destination_rank: int
    source: str
    source_offset: int
    destination: str
    destination_offset: int
    dim: int
    length: int
    tensor: str
    row_bytes: int

    @property
    def bytes(self) -> int:
        return self.length * self.row_bytes


@frozen
class Bucket:
    """Transfers between this rank and a peer that travel as one message."""

    peer: int
    transfers: tuple[Transfer, ...]

    @property
    def bytes(self) -> int:
        return sum(transfer.bytes for transfer in self.transfers)


@frozen
class Round:
    """What a rank sends and receives at the same time, under the number both ends know."""

    number: tuple[int, int]
    send: Bucket | None
    receive: Bucket | None


@frozen
class Row:
    """All that one rank does in the switch.

    `aliases` are (rollout parameter, training parameter) of the same storage; `copies`
    stay on the rank; `reads` are taken out of the memory of other ranks of the same island;
    `rounds`, with all others, ascend by number; `proof` is how the result is checked.
    """

    rank: int
    aliases: tuple[tuple[str, str], ...]
    copies: tuple[Transfer, ...]
    reads: tuple[Transfer, ...]
    rounds: tuple[Round, ...]
    proof: Proof

    @property
    def local_bytes(self) -> int:
        return sum(transfer.bytes for transfer in self.copies)

    @property
    def received_bytes(self) -> int:
        read = sum(transfer.bytes for transfer in self.reads)
        return read + sum(step.receive.bytes for step in self.rounds if step.receive)

    @property
    def sent_bytes(self) -> int:
        """Bytes of messages; what others read out of this rank's memory it does not send."""
        return sum(step.send.bytes for step in self.rounds if step.send)


def in_buckets(transfers: Iterable[Transfer], limit: int) -> Iterator[tuple[Transfer, ...]]:
    """The transfers of one message in order, cut so that a bucket has at most `limit` bytes.

    A single row longer than the limit is a bucket of its own.
    """
    bucket: list[Transfer] = []
    free = limit
    for transfer in transfers:
        done = 0
        while done < transfer.length:
            rows = min(transfer.length - done, max(0, free // transfer.row_bytes))
            if rows == 0 and bucket:
                yield tuple(bucket)
                bucket, free = [], limit
                continue
            rows = max(rows, 1)
            bucket.append(_slice(transfer, done, rows))
            free -= rows * transfer.row_bytes
            done += rows
    if bucket:
        yield tuple(bucket)


def _slice(transfer: Transfer, first: int, rows: int) -> Transfer:
    if rows == transfer.length:
        return transfer
    return replace(
        transfer,
        source_offset=transfer.source_offset + first,
        destination_offset=transfer.destination_offset + first,
        length=rows,
    )
