"""The device and its links by themselves, and then in the engines: what a calibration needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from plans.model import ModelSpec, read_model
from plans.units import GIB, KIB, MIB
from runtime.context import RankContext
from runtime.measure.clock import Timing, timed
from runtime.measure.machine import provenance
from runtime.measure.probe import probes

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# Rows of a product: a micro-batch of training or prefill, and batches of decoding.
ROWS = {"cuda": (8192, 256, 32, 1), "cpu": (256, 1)}
SQUARES = {"cuda": (4096, 8192), "cpu": (256,)}
COPY_BYTES = {"cuda": 4 * GIB, "cpu": 64 * MIB}
HOST_BYTES = GIB
MESSAGES = {"cuda": (8 * KIB, MIB, 64 * MIB, GIB), "cpu": (8 * KIB, MIB)}
LAUNCHES = 1000
# A short operation is made so often between two looks at the clock, which take some of its time.
SHORT_SECONDS, AT_ONCE = 1e-3, 20


def measure(context: RankContext, asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One row a measurement: what, its size, milliseconds, and the rate where it has one."""
    repeats = int(asked["repeats"])
    common = provenance(context, asked)
    kind = context.device.partition(":")[0]
    device = torch.device(context.device)
    dtype = DTYPES[context.plan.precision]
    for found in (
        _products(read_model(context.base / "shape"), device, dtype, kind, repeats),
        _copies(device, kind, repeats),
        _launches(device, repeats),
        _collectives(device, kind, repeats) if dist.get_world_size() > 1 else (),
        probes(context, repeats) if asked["engines"] else (),
    ):
        for row in found:
            yield row | common


def _timed(work: Callable[[], object], repeats: int) -> Timing:
    """Seconds of one turn of `work`; several are timed together where one is short."""
    first = timed(work, 1)
    if first.median > SHORT_SECONDS:
        return timed(work, repeats)

    def several() -> None:
        for _ in range(AT_ONCE):
            work()

    together = timed(several, repeats)
    return Timing(seconds=tuple(one / AT_ONCE for one in together.seconds))


def _row(what: str, timing: Timing, **facts: Any) -> dict[str, Any]:
    return {"what": what, **facts, **timing.milliseconds()}


def _products(
    model: ModelSpec, device: torch.device, dtype: torch.dtype, kind: str, repeats: int
) -> Iterator[dict[str, Any]]:
    """x [m, k] times W [n, k] transposed, on random data: zeros run faster."""
    shapes = [("square", size, size, size) for size in SQUARES[kind]]
    shapes += [
        (name, rows, wide, deep) for rows in ROWS[kind] for name, wide, deep in matrices(model)
    ]
    for name, m, n, k in shapes:
        x = torch.randn(m, k, device=device, dtype=dtype)
        weight = torch.randn(n, k, device=device, dtype=dtype)
        timing = _timed(lambda x=x, weight=weight: x @ weight.T, repeats)  # type: ignore[misc]
        rate = 2 * m * n * k / timing.median
        moved = (m * k + n * k + m * n) * x.element_size() / timing.median
        yield _row(
            "product",
            timing,
            name=name,
            m=m,
            n=n,
            k=k,
            flops_per_second=rate,
            bytes_per_second=moved,
        )
        del x, weight


def matrices(model: ModelSpec) -> list[tuple[str, int, int]]:
    """(name, rows, columns) of the weights of a layer, and of the head."""
    hidden, head = model.hidden_size, model.head_size
    return [
        ("qkv", (model.head_count + 2 * model.kv_head_count) * head, hidden),
        ("o", hidden, model.head_count * head),
        ("gate_up", 2 * model.intermediate_size, hidden),
        ("down", hidden, model.intermediate_size),
        ("head", model.vocab_size, hidden),
    ]


def _copies(device: torch.device, kind: str, repeats: int) -> Iterator[dict[str, Any]]:
    count = COPY_BYTES[kind]
    source = torch.ones(count, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    timing = timed(lambda: target.copy_(source), repeats)
    rate = 2 * count / timing.median
    yield _row("copy on the device", timing, bytes=count, bytes_per_second=rate)
    if kind == "cuda":
        host = torch.ones(HOST_BYTES, dtype=torch.uint8).pin_memory()
        there = source[:HOST_BYTES]
        for what, into, out in (("host to device", there, host), ("device to host", host, there)):
            timing = timed(lambda a=into, b=out: a.copy_(b, non_blocking=True), repeats)  # type: ignore[misc]
            rate = HOST_BYTES / timing.median
            yield _row(what, timing, bytes=HOST_BYTES, bytes_per_second=rate)


def _launches(device: torch.device, repeats: int) -> Iterator[dict[str, Any]]:
    """What it takes the host to start a small operation, by one thousand of them."""
    small = torch.zeros(8, device=device)

    def many() -> None:
        for _ in range(LAUNCHES):
            small.add_(1)

    timing = timed(many, repeats)
    yield _row("launches", timing, count=LAUNCHES, microseconds_each=1e6 * timing.median / LAUNCHES)


def _collectives(device: torch.device, kind: str, repeats: int) -> Iterator[dict[str, Any]]:
    """Rates are bus rates: what a link carries, whatever the number of ranks."""
    size = dist.get_world_size()
    for count in MESSAGES[kind]:
        mine = torch.ones(count // 4, device=device)
        all_of_them = mine.new_empty(size * mine.numel())
        share = mine.new_empty(mine.numel() // size)
        ways: list[tuple[str, Callable[[], object], float]] = [
            ("all_reduce", lambda x=mine: dist.all_reduce(x), 2 * (size - 1) / size),  # type: ignore[misc]
            ("all_gather", _gathering(all_of_them, mine), size - 1),
        ]
        if kind == "cuda":
            whole = mine[: share.numel() * size]
            ways.append(("reduce_scatter", _scattering(share, whole), (size - 1) / size))
        for name, work, factor in ways:
            timing = _timed(work, repeats)
            rate = factor * count / timing.median
            yield _row(name, timing, ranks_together=size, bytes=count, bytes_per_second=rate)


def _gathering(into: Tensor, mine: Tensor) -> Callable[[], object]:
    return lambda: dist.all_gather_into_tensor(into, mine)


def _scattering(share: Tensor, whole: Tensor) -> Callable[[], object]:
    return lambda: dist.reduce_scatter_tensor(share, whole)
