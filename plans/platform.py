"""Platforms: the environment a kind of machine needs, and how a rank sees its devices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from plans.source import UserError
from plans.values import frozen
from plans.variables import CPU_VARIABLES, CUDA_VARIABLES, ONE_HOST, Variable


@frozen
class Platform:
    """A kind of machine: its variables, and which variable hides devices from a process."""

    name: Literal["cpu", "cuda", "rocm"]
    variables: tuple[Variable, ...]
    mask: str = ""

    def environment(self, user: Mapping[str, str], debug: bool = False) -> dict[str, str]:
        """What to set for a rank beside what the user has set."""
        return {
            variable.name: variable.value
            for variable in self.variables
            if variable.scope == "must"
            or (variable.scope == "tune" and variable.name not in user)
            or (variable.scope == "debug" and debug)
        }

    def on_one_host(self) -> Platform:
        """This platform for a run whose ranks all live on one host: nothing leaves it."""
        return replace(self, variables=(*self.variables, *ONE_HOST))

    def overruled(self, user: Mapping[str, str]) -> tuple[Variable, ...]:
        """The variables that must be set and that the user has set otherwise."""
        return tuple(
            variable
            for variable in self.variables
            if variable.scope == "must"
            and user.get(variable.name, variable.value) != variable.value
        )


@frozen
class DeviceMask:
    """How one process sees its devices: the variables to set and to remove, and its own index."""

    values: Mapping[str, str]
    removed: frozenset[str]
    index: int


CUDA_MASK, HIP_MASK, ROCR_MASK = (
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
)
MASKS = frozenset({CUDA_MASK, HIP_MASK, ROCR_MASK, "GPU_DEVICE_ORDINAL", "ZE_AFFINITY_MASK"})


def device_mask(
    environment: Mapping[str, str], platform: Literal["cuda", "rocm"], local_rank: int
) -> DeviceMask:
    """Exactly one visibility variable, and the device of a rank among what it leaves visible.

    Slurm may set ROCR_ and CUDA_VISIBLE_DEVICES together; the second then counts among the
    devices the first has left and hides all of them, and vLLM refuses the pair. On ROCm
    ROCR (or, without it, the mask that is set) becomes HIP_VISIBLE_DEVICES. A rank that
    sees one device owns it. UserError when two masks disagree.
    """
    given = {
        name: environment[name]
        for name in (ROCR_MASK, HIP_MASK, CUDA_MASK)
        if environment.get(name)
    }
    if platform == "cuda":
        kept, chosen = CUDA_MASK, given.get(CUDA_MASK)
    else:
        kept, chosen = HIP_MASK, _rocm_choice(given)
    values = {kept: chosen} if chosen else {}
    count = len(chosen.split(",")) if chosen else None
    if count is not None and count > 1 and local_rank >= count:
        raise UserError(
            f"{kept}={chosen}: {count} devices, but this is the host's rank {local_rank}; "
            "ask for as many devices as ranks a node"
        )
    removed = MASKS - set(values)
    return DeviceMask(values=values, removed=removed, index=0 if count == 1 else local_rank)


def _rocm_choice(given: Mapping[str, str]) -> str | None:
    """The one mask of an AMD process; HIP and CUDA are two names of the same list."""
    hip, cuda, rocr = given.get(HIP_MASK), given.get(CUDA_MASK), given.get(ROCR_MASK)
    if hip and cuda and hip != cuda:
        raise UserError(f"{HIP_MASK}={hip} and {CUDA_MASK}={cuda} differ; unset one of them")
    if rocr and (hip or cuda) and (hip or cuda) != rocr:
        raise UserError(
            f"{ROCR_MASK}={rocr} and {HIP_MASK if hip else CUDA_MASK}={hip or cuda} differ, and "
            "the second counts among the devices of the first; unset one of them"
        )
    return rocr or hip or cuda


CPU = Platform(name="cpu", variables=CPU_VARIABLES)
CUDA = Platform(name="cuda", mask=CUDA_MASK, variables=CUDA_VARIABLES)
