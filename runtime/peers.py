"""The memory of other ranks of this host, as tensors: CUDA IPC, or shared memory on a CPU."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.storage import UntypedStorage

from plans.values import frozen


@frozen
class Parameter:
    """Where a parameter lies in its rank's memory: which storage, and how it lies in it."""

    storage: int
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: str


def exchange(
    parameters: Mapping[str, Tensor],
    near: Sequence[int],
    device: torch.device,
    group: dist.ProcessGroup | None,
) -> dict[int, dict[str, Tensor]]:
    """The parameters of the ranks `near`, by rank and name, in the memory where they lie.

    Collective over `group`, whose ranks may name different neighbours. What is read there
    must be ordered with what its owner writes. GPUs' memory is opened for this rank's own
    device, so that its kernels reach it; on a CPU the parameters must lie in shared memory.
    """
    told = _tell(_describe(parameters), group)
    found: dict[int, dict[str, Tensor]] = {}
    for rank in near:
        card = json.loads(told[rank])
        storages = [_open(handle, device) for handle in card["storages"]]
        found[rank] = {
            name: _tensor(storages, Parameter(**place), device)
            for name, place in card["parameters"].items()
        }
    return found


def _describe(parameters: Mapping[str, Tensor]) -> str:
    """This rank's storages and parameters as JSON; bytes in hexadecimal."""
    places: dict[int, int] = {}
    storages: list[list[Any]] = []
    described = {}
    for name, parameter in parameters.items():
        storage = parameter.untyped_storage()
        if storage.data_ptr() not in places:
            places[storage.data_ptr()] = len(storages)
            storages.append(_handle(storage))
        described[name] = {
            "storage": places[storage.data_ptr()],
            "offset": parameter.storage_offset(),
            "shape": list(parameter.shape),
            "stride": list(parameter.stride()),
            "dtype": str(parameter.dtype).removeprefix("torch."),
        }
    return json.dumps({"storages": storages, "parameters": described})


def _handle(storage: UntypedStorage) -> list[Any]:
    if storage.device.type == "cpu":
        place = storage.data_ptr()
        parts = storage._share_filename_cpu_()
        assert storage.data_ptr() == place, "on a CPU only named shared memory can be read"
    else:
        parts = storage._share_cuda_()  # type: ignore[no-untyped-call]
    return [{"hex": one.hex()} if isinstance(one, bytes) else one for one in parts]


def _open(handle: list[Any], device: torch.device) -> UntypedStorage:
    parts = [bytes.fromhex(one["hex"]) if isinstance(one, dict) else one for one in handle]
    if device.type == "cpu":
        return UntypedStorage._new_shared_filename_cpu(*parts)
    # The owner's number of its device means nothing here.
    opened: UntypedStorage = UntypedStorage._new_shared_cuda(device.index, *parts[1:])
    return opened


def _tensor(storages: Sequence[UntypedStorage], place: Parameter, device: torch.device) -> Tensor:
    empty = torch.empty(0, dtype=getattr(torch, place.dtype), device=device)
    return empty.set_(storages[place.storage], place.offset, place.shape, place.stride)


def _tell(text: str, group: dist.ProcessGroup | None) -> list[str]:
    """The texts of all ranks, in order."""
    data = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
    size = dist.get_world_size(group)
    lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(size)]
    dist.all_gather(lengths, torch.tensor([len(data)]), group=group)
    longest = max(int(length) for length in lengths)
    sheets = [torch.zeros(longest, dtype=torch.uint8) for _ in range(size)]
    dist.all_gather(sheets, torch.nn.functional.pad(data, (0, longest - len(data))), group=group)
    return [
        bytes(sheet[: int(length)].tolist()).decode()
        for sheet, length in zip(sheets, lengths, strict=True)
    ]
