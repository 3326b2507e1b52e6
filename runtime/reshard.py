"""The weight switch, carried out: aliases checked, copies made, buckets sent and received."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor

from plans.proof import Region
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
    buffers, one each way and as large as the largest bucket that needs one, are allocated
    here and kept. Making, running and verifying are collective over `group` (None: the
    default group), whose ranks are those of the schedule.

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
        out = [_part(step.send, here) for step in row.rounds]
        into = [_part(step.receive, there) for step in row.rounds]
        self._out, self._into = _buffer(out), _buffer(into)
        self._rounds = [
            (_message(leaving, self._out), _message(arriving, self._into))
            for leaving, arriving in zip(out, into, strict=True)
        ]
        # NCCL sets up a communicator in the first call, which all ranks must make: a round
        # of sends and receives is not for all, so this comes before it.
        self._total(torch.zeros(1, dtype=torch.int64, device=next(iter(source.values())).device))

    @property
    def staging_bytes(self) -> int:
        """Memory this executor holds beside the parameters."""
        return sum(buffer.nbytes for buffer in (self._out, self._into) if buffer is not None)

    @torch.no_grad()
    def run(self) -> Moved:
        """Bring the training weights to the rollout parameters, round by round."""
        _copy(self._there, self._here)
        sent = received = 0
        for leaving, arriving in self._rounds:
            if leaving:
                _copy(leaving.slots, leaving.views)
                sent += leaving.wire.nbytes
            self._exchange(leaving, arriving)
            if arriving:
                _copy(arriving.views, arriving.slots)
                received += arriving.wire.nbytes
        local = sum(view.nbytes for view in self._there)
        return Moved(local_bytes=local, received_bytes=received, sent_bytes=sent)

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

    def _exchange(self, leaving: _Message | None, arriving: _Message | None) -> None:
        """One round: both messages posted, then both waited for."""
        group = self._group or dist.group.WORLD
        assert group is not None
        operations = [
            dist.P2POp(way, message.wire, dist.get_global_rank(group, message.peer), group)
            for way, message in ((dist.isend, leaving), (dist.irecv, arriving))
            if message
        ]
        for work in dist.batch_isend_irecv(operations):
            work.wait()

    def _total(self, table: Tensor) -> None:
        """Sum over the ranks, in place; modulo 2**64."""
        if dist.is_initialized():
            dist.all_reduce(table, group=self._group)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Message:
    """A bucket on the wire, and where its parts belong.

    A bucket of one contiguous view travels from or into the parameter itself and has no slots.
    """

    peer: int
    wire: Tensor
    slots: list[Tensor]
    views: list[Tensor]


# A peer and the views of the parameters that go to it or come from it.
_Part = tuple[int, list[Tensor]]


def _part(bucket: Bucket | None, view: Callable[[Transfer], Tensor]) -> _Part | None:
    return (bucket.peer, [view(one) for one in bucket.transfers]) if bucket else None


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


def _buffer(parts: Iterable[_Part | None]) -> Tensor | None:
    """Room for the largest of the messages that need packing."""
    packed = [part[1] for part in parts if part and not _direct(part[1])]
    if not packed:
        return None
    return packed[0][0].new_empty(max(sum(view.numel() for view in views) for views in packed))


def _message(part: _Part | None, buffer: Tensor | None) -> _Message | None:
    if part is None:
        return None
    peer, views = part
    if _direct(views):
        return _Message(peer=peer, wire=views[0], slots=[], views=[])
    assert buffer is not None
    sizes = [view.numel() for view in views]
    wire = buffer[: sum(sizes)]
    slots = [
        slot.view(view.shape) for slot, view in zip(torch.split(wire, sizes), views, strict=True)
    ]
    return _Message(peer=peer, wire=wire, slots=slots, views=views)


def _direct(views: list[Tensor]) -> bool:
    return len(views) == 1 and views[0].is_contiguous()


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
