"""Collectives: alpha + bytes / bandwidth, by level of the network and topology."""

from __future__ import annotations

from math import log2
from typing import Literal

from plans.times.device import Device
from plans.times.rates import MICROSECOND, OpRates
from plans.values import frozen

Collective = Literal[
    "all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", "send"
]
# one-shot kernels serve smaller messages, rings larger ones
SMALL_BYTES = 2**20


@frozen
class Group:
    """Ranks of one collective: how many, and how many of them share a link domain."""

    size: int
    inside: int

    @property
    def domains(self) -> int:
        return -(-self.size // max(1, self.inside))


def group(size: int, stride: int, domain: int) -> Group:
    """The group of `size` ranks that are `stride` apart, on domains of `domain` devices."""
    return Group(size=size, inside=max(1, min(size, domain // max(1, stride))))


def collective_seconds(
    kind: Collective, count: float, ranks: Group, device: Device, rates: OpRates
) -> float:
    """Seconds for `count` bytes: the whole tensor, or what one rank sends in an all-to-all.

    Within a domain a ring (n-1)/n of the bytes per direction; across domains every device of a
    domain drives its NIC, so a ring sees `inside` NICs (4 x 8 B200: within 6 % of 22.05 ms for
    4 GiB; ml-engineering). Latency grows with the number of domains like a tree.
    """
    if ranks.size <= 1 or count <= 0:
        return 0.0
    link = device.link_bytes_per_second(min(ranks.size, ranks.inside)) * rates.link_share
    nic = device.nic_bytes_per_second * rates.nic_share
    start = rates.link_us + (rates.ring_us - rates.link_us) * count / (count + SMALL_BYTES)
    alpha = start * (0.6 + 0.2 * log2(ranks.inside)) if ranks.inside > 1 else 0.0
    if ranks.domains > 1:
        alpha += rates.nic_us * (1 + log2(ranks.domains))
    return alpha * MICROSECOND + _wire_seconds(kind, count, ranks, link, nic)


def _wire_seconds(kind: Collective, count: float, ranks: Group, link: float, nic: float) -> float:
    size, inside = ranks.size, ranks.inside
    if kind == "all_to_all":
        near = count * (inside - 1) / size / link if inside > 1 else 0.0
        return max(near, count * (size - inside) / size / nic)
    if kind == "send":
        return count / (link if ranks.domains == 1 else nic)
    factor = 1.0 if kind == "broadcast" else (size - 1) / size
    factor *= 2.0 if kind == "all_reduce" else 1.0
    near = count * factor / link if inside > 1 else 0.0
    return near if ranks.domains == 1 else max(near, count * factor / (inside * nic))
