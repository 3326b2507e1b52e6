"""This rank's device as torch sees it: it exists, nobody else has it, and its cores are near."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import field, replace

import torch

from plans.record import ExitCode
from plans.values import frozen
from runtime import environment
from runtime.affinity import affinity_of, bind
from runtime.context import RankContext
from runtime.fabric import network_settings
from runtime.host import AMD, Gpu, read_gpus, read_nics
from runtime.mistakes import UnfitHost
from runtime.preflight_ranks import check_own_devices


@frozen
class Seating:
    """Where a rank's device is and what it was bound to; `reason` says why it was not.

    `network`: the variables that the host's network asked for, and nobody had set.
    """

    address: str = ""
    numa: int | None = None
    cores: int = 0
    nic: str | None = None
    network: Mapping[str, str] = field(default_factory=dict)
    reason: str = "ranks on a CPU take any core"


def take_device(context: RankContext) -> Seating:
    """Make sure of this rank's device, and stay near it; all ranks call this.

    UnfitHost when torch does not find it, SharedDevice when two ranks of a host have one.
    """
    kind, _, number = context.device.partition(":")
    if kind != "cuda":
        check_own_devices(context, "")
        return Seating()
    index, count = int(number), torch.cuda.device_count()
    if index >= count:
        raise UnfitHost(
            f"{context.host}: torch finds {count} devices, this is the host's rank "
            f"{context.local_rank}: `rlplan doctor` on this node says why",
            ExitCode.DEVICES,
        )
    identity = str(torch.cuda.get_device_properties(index).uuid)
    check_own_devices(context, identity)
    seating = Seating(reason="skipped") if "affinity" in context.skip else stay_near(identity)
    if context.local_size == context.control.size:
        return seating
    network = network_settings(environment.current())
    environment.change(network)
    return replace(seating, network=network)


def stay_near(identity: str) -> Seating:
    """Bind this process to the cores of its GPU's NUMA node, where the host tells which."""
    gpu = gpu_of(identity, read_gpus())
    if gpu is None:
        return Seating(reason=f"/sys and /proc name no GPU {identity}")
    near = affinity_of(gpu, read_nics(), frozenset(os.sched_getaffinity(0)))
    bind(near)
    return Seating(
        address=gpu.address,
        numa=near.numa,
        cores=len(near.cores),
        nic=near.nic,
        reason=near.reason,
    )


def gpu_of(identity: str, gpus: Sequence[Gpu]) -> Gpu | None:
    """The GPU that torch calls by this UUID.

    NVIDIA's driver tells the same UUID. ROCm puts the 16 letters of the unique id of
    /sys into the UUID's bytes.
    """
    letters = bytes.fromhex(identity.replace("-", "")).decode("ascii", errors="replace")
    for gpu in gpus:
        names = {gpu.identity.lower()} if gpu.identity else set()
        if identity.lower() in names or (gpu.vendor == AMD and letters.lower() in names):
            return gpu
    return None
