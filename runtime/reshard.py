"""The weight switch, carried out: aliases checked, copies made, buckets sent and received."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor

from plans.proof import Region
from plans.reshard import ROUNDS_IN_FLIGHT
from plans.transfer import Bucket, Row, Transfer
from runtime.checksum import checksum

SHOWN = 3


class SwitchError(RuntimeError):
    """The engines do not hold what the schedule says, or the switch left them different."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """Bytes that one run of the switch moved on this rank, counted from the tensors themselves."""

    local_bytes: int
    received_bytes: int
    sent_bytes: int


class Executor:
    """One rank's part of the switch between parameters whose storage stays where it is.

    `source` and `destination` are the training and rollout parameters by name. Two staging
    buffers each way, as large as the largest bucket, are allocated here and kept. Making,
    running and verifying are collective over `group` (None: the default group), whose ranks
    are those of the schedule.

    Raises SwitchError when a parameter is missing, differs from the plan in size or type, or
    is not the alias it should be.
    """

    def __init__(
        self,
        row: Row,
        *,
        source: Mapping[str, Tensor],
        destination: Mapping[str, Tensor],
        group: dist.ProcessGroup | None = None,
    ) -> None:
        _check_types(source, destination)
        _check_aliases(row, source, destination)
        self._row, self._group = row, group
        self._source, self._destination = source, destination
        here, there = partial(_source_view, source), partial(_destination_view, destination)
        self._here = [here(transfer) for transfer in row.copies]
        self._there = [there(transfer) for transfer in row.copies]
        out = [_parcel(step.send, here) for step in row.rounds]
        into = [_parcel(step.receive, there) for step in row.rounds]
        self._buffers = (_buffers(out), _buffers(into))
        sends, receives = (
            [_message(parcel, buffers, number) for number, parcel in enumerate(parcels)]
            for parcels, buffers in zip((out, into), self._buffers, strict=True)
        )
        self._rounds = [
            _Exchange(sending=one, receiving=other)
            for one, other in zip(sends, receives, strict=True)
        ]
        # NCCL sets up a communicator in the first call, which all ranks must make: a round
        # of sends and receives is not for all, so this comes before it.
        self._total(torch.zeros(1, dtype=torch.int64, device=next(iter(source.values())).device))

    @property
    def staging_bytes(self) -> int:
        """Memory this executor holds beside the parameters."""
        return sum(buffer.nbytes for side in self._buffers for buffer in side)

    @torch.no_grad()
    def run(self) -> Moved:
        """Bring the training weights to the rollout parameters.

        One round is packed while the one before is on its way, in the other buffers; the
        local copies are made while the first travels. On a GPU the caller's stream has them
        all in order when this returns.
        """
        rounds = self._rounds
        travelling = self._post(rounds[0]) if rounds else []
        _copy(self._there, self._here)
        for number, step in enumerate(rounds, start=1):
            following = self._post(rounds[number]) if number < len(rounds) else []
            step.finish(travelling)
            travelling = following
        return Moved(
            local_bytes=sum(view.nbytes for view in self._there),
            received_bytes=sum(step.receiving.wire.nbytes for step in rounds if step.receiving),
            sent_bytes=sum(step.sending.wire.nbytes for step in rounds if step.sending),
        )

    @torch.no_grad()
    def verify(self) -> None:
        """Prove that each rank's rollout parameters equal the training weights, bit for bit.

        One training rank gives the checksum of each region of the model; the sum over all
        ranks is the table in which every rank looks its own regions up. Raises SwitchError
        on the ranks whose parameters differ, naming the tensors.
        """
        proof = self._row.proof
        vouched, claimed = list(proof.vouched), list(proof.claimed)
        device = next(iter(self._source.values())).device
        table = torch.zeros(proof.region_count, dtype=torch.int64, device=device)
        if vouched:
            table[_numbers(vouched, device)] = _checksums(vouched, self._source)
        self._total(table)
        right = table[_numbers(claimed, device)] == _checksums(claimed, self._destination)
        wrong = [region for region, same in zip(claimed, right.tolist(), strict=True) if not same]
        if wrong:
            raise SwitchError(_difference(self._row.rank, wrong, len(claimed)))

    def _post(self, step: _Exchange) -> list[dist.Work]:
        """Pack what a round sends and start both of its messages."""
        group = self._group or dist.group.WORLD
        assert group is not None
        if step.sending:
            _copy(step.sending.slots, step.sending.views)
        ways = ((dist.isend, step.sending), (dist.irecv, step.receiving))
        operations = [
            dist.P2POp(way, message.wire, dist.get_global_rank(group, message.peer), group)
            for way, message in ways
            if message
        ]
        return dist.batch_isend_irecv(operations)

    def _total(self, table: Tensor) -> None:
        """Sum over the ranks, in place; modulo 2**64."""
        if dist.is_initialized():
            dist.all_reduce(table, group=self._group)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Message:
    """A bucket on the wire: a flat tensor, its slots, and the views of parameters they pack."""

    peer: int
    wire: Tensor
    slots: list[Tensor]
    views: list[Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Exchange:
    """What a rank sends and receives in one round."""

    sending: _Message | None
    receiving: _Message | None

    def finish(self, works: list[dist.Work]) -> None:
        """Wait for both messages and put what arrived where it belongs."""
        for work in works:
            work.wait()
        if self.receiving:
            _copy(self.receiving.views, self.receiving.slots)


# A peer, and the views of parameters that go to it or come from it.
_Parcel = tuple[int, list[Tensor]]


def _parcel(bucket: Bucket | None, view: Callable[[Transfer], Tensor]) -> _Parcel | None:
    return (bucket.peer, [view(one) for one in bucket.transfers]) if bucket else None


def _buffers(parcels: Sequence[_Parcel | None]) -> list[Tensor]:
    """Room for the largest parcel, once for each of the two rounds that travel at a time."""
    packed = [views for _, views in filter(None, parcels)]
    if not packed:
        return []
    elements = max(sum(view.numel() for view in views) for views in packed)
    return [packed[0][0].new_empty(elements) for _ in range(min(ROUNDS_IN_FLIGHT, len(parcels)))]


def _message(parcel: _Parcel | None, buffers: list[Tensor], number: int) -> _Message | None:
    if parcel is None:
        return None
    peer, views = parcel
    sizes = [view.numel() for view in views]
    wire = buffers[number % len(buffers)][: sum(sizes)]
    pieces = zip(torch.split(wire, sizes), views, strict=True)
    slots = [piece.view(view.shape) for piece, view in pieces]
    return _Message(peer=peer, wire=wire, slots=slots, views=views)


def _source_view(source: Mapping[str, Tensor], transfer: Transfer) -> Tensor:
    return _view(source, transfer.source, transfer.source_offset, transfer)


def _destination_view(destination: Mapping[str, Tensor], transfer: Transfer) -> Tensor:
    return _view(destination, transfer.destination, transfer.destination_offset, transfer)


def _view(parameters: Mapping[str, Tensor], name: str, offset: int, transfer: Transfer) -> Tensor:
    whole = _parameter(parameters, name)
    if offset + transfer.length > whole.shape[transfer.dim]:
        raise SwitchError(f"{name}: shape {tuple(whole.shape)} ends before the plan's slice")
    view = whole.narrow(transfer.dim, offset, transfer.length)
    if view.nbytes != transfer.bytes:
        raise SwitchError(f"{name}: {view.nbytes} bytes where the plan has {transfer.bytes}")
    return view


def _parameter(parameters: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in parameters:
        raise SwitchError(f"{name}: in the plan, but not in the engine")
    return parameters[name].detach()


def _copy(into: list[Tensor], out: list[Tensor]) -> None:
    if into:
        torch._foreach_copy_(into, out)


def _checksums(regions: Sequence[Region], parameters: Mapping[str, Tensor]) -> Tensor:
    sums = []
    for region in regions:
        part = _parameter(parameters, region.parameter).narrow(
            region.dim, region.offset, region.length
        )
        sums.append(checksum(part, region.dim, region.start))
    return torch.stack(sums)


def _numbers(regions: Sequence[Region], device: torch.device) -> Tensor:
    return torch.tensor([region.index for region in regions], device=device)


def _difference(rank: int, wrong: list[Region], total: int) -> str:
    shown = [f"{one.tensor}[{one.start}:{one.start + one.length}]" for one in wrong[:SHOWN]]
    more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    return (
        f"rank {rank}: {len(wrong)} of {total} slices of the rollout weights differ from the "
        f"training weights after the switch: {', '.join(shown)}{more}"
    )


def _check_types(source: Mapping[str, Tensor], destination: Mapping[str, Tensor]) -> None:
    types = {tensor.dtype for side in (source, destination) for tensor in side.values()}
    if len(types) > 1:
        raise SwitchError(f"both engines hold one type of element, not {sorted(map(str, types))}")


def _check_aliases(
    row: Row, source: Mapping[str, Tensor], destination: Mapping[str, Tensor]
) -> None:
    """Parameters planned as one storage are one; the plan moves no bytes for them."""
    for name, origin in row.aliases:
        mine, theirs = _parameter(destination, name), _parameter(source, origin)
        if mine.data_ptr() != theirs.data_ptr() or mine.shape != theirs.shape:
            raise SwitchError(
                f"rank {row.rank}: rollout {name} is not the storage of training {origin}"
            )
