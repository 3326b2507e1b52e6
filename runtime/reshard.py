"""The weight switch, carried out: aliases checked, copies made, peers read, buckets exchanged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor

from plans.proof import Region
from plans.transfer import Row, Transfer
from plans.values import frozen
from runtime import peers
from runtime.checksum import checksum
from runtime.copying import Copies
from runtime.messages import exchanges

SHOWN = 3


class SwitchError(RuntimeError):
    """The engines do not hold what the schedule says, or the switch left them different."""


@frozen
class Moved:
    """Bytes that one run of the switch moved on this rank, counted from the tensors themselves.

    What other ranks read out of this rank's memory is not sent.
    """

    local_bytes: int
    received_bytes: int
    sent_bytes: int


class Executor:
    """One rank's part of the switch between parameters whose storage stays where it is.

    `source` and `destination` are the training and rollout parameters by name, empty where a
    rank has none; `device` holds them (None: where `source` lies). What the plan
    reads from ranks of the same island is read out of their memory, opened here once; of the
    rest, two staging buffers each way, as large as the largest bucket, are allocated here and
    kept. Making, running and verifying are collective over `group` (None: the default
    group), whose ranks are those of the schedule.

    Raises SwitchError when a parameter is missing, differs from the plan in size or type, or
    is not the alias it should be.
    """

    def __init__(
        self,
        row: Row,
        *,
        source: Mapping[str, Tensor],
        destination: Mapping[str, Tensor],
        device: torch.device | None = None,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        _check_types(source, destination)
        _check_aliases(row, source, destination)
        self._row, self._group = row, group
        self._device = device or next(iter(source.values())).device
        self._source, self._destination = source, destination
        here, there = partial(_source_view, source), partial(_destination_view, destination)
        self._exchanges = exchanges(row.rounds, here, there)
        # NCCL sets up a communicator in the first call, which all ranks must make: a round
        # of sends and receives is not for all, so this comes before it.
        readers = torch.tensor([int(bool(row.reads))], device=self._device)
        self._total(readers)
        self._shared = bool(readers)
        self._signal = torch.zeros_like(readers)
        memory = self._neighbours()
        mine = [*row.copies, *row.reads]
        out = [_source_view(memory[transfer.source_rank], transfer) for transfer in mine]
        lanes = [transfer.source_rank for transfer in mine]
        self._copies = Copies([there(transfer) for transfer in mine], out, lanes)

    @property
    def staging_bytes(self) -> int:
        """Memory this executor holds beside the parameters."""
        return self._copies.table_bytes + self._exchanges.held_bytes

    @torch.no_grad()
    def run(self) -> Moved:
        """Bring the training weights to the rollout parameters.

        Nobody reads a neighbour's weights before they are final, nor changes them while they
        are read. All is in place when this returns, so that its time is the switch's.
        """
        if self._shared:
            self._total(self._signal)
        self._exchanges.run(self._group, self._copies.run)
        if self._shared:
            self._total(self._signal)
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()
        read = sum(transfer.bytes for transfer in self._row.reads)
        return Moved(
            local_bytes=self._copies.bytes - read,
            received_bytes=read + self._exchanges.received_bytes,
            sent_bytes=self._exchanges.sent_bytes,
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
        device = self._device
        table = torch.zeros(proof.region_count, dtype=torch.int64, device=device)
        if vouched:
            table[_numbers(vouched, device)] = _checksums(vouched, self._source)
        self._total(table)
        if not claimed:
            return
        right = table[_numbers(claimed, device)] == _checksums(claimed, self._destination)
        wrong = [region for region, same in zip(claimed, right.tolist(), strict=True) if not same]
        if wrong:
            raise SwitchError(_difference(self._row.rank, wrong, len(claimed)))

    def _neighbours(self) -> dict[int, Mapping[str, Tensor]]:
        """The training parameters of this rank, and of those it reads from."""
        memory: dict[int, Mapping[str, Tensor]] = {self._row.rank: self._source}
        if self._shared:
            near = sorted({transfer.source_rank for transfer in self._row.reads})
            memory |= peers.exchange(self._source, near, self._device, self._group)
        return memory

    def _total(self, table: Tensor) -> None:
        """Sum over the ranks, in place; modulo 2**64."""
        if dist.is_initialized():
            dist.all_reduce(table, group=self._group)


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
