"""The environment of AMD MI300X GPUs, each variable with its reason and source.

Left out on purpose, though often seen in scripts: NCCL_CHECKS_DISABLE (without effect since
NCCL 2.2.12), RCCL_MSCCL_ENABLE (RCCL no longer has MSCCL), NCCL_PROTO and NCCL_DEBUG=TRACE
(for debugging), HSA_XNACK (never for training), and network card names, which belong to one
cluster.
"""

from __future__ import annotations

from plans.platform import HIP_MASK, Platform
from plans.variables import COMMON, MEGATRON_CONNECTIONS, Variable

ROCM_TUNING = "ROCm documentation, MI300X workload tuning"
VLLM_ROCM = "vLLM documentation, ROCm"
PRIMUS = "AMD Primus, base_env.sh"

MI300X = Platform(
    name="rocm",
    mask=HIP_MASK,
    variables=(
        *COMMON,
        Variable(
            name="GPU_MAX_HW_QUEUES",
            value="2",
            reason="with more queues a process, kernels of compute and RCCL wait for each other",
            source=f"{ROCM_TUNING}; {PRIMUS}",
            scope="tune",
        ),
        Variable(
            name="HIP_FORCE_DEV_KERNARG",
            value="1",
            reason="kernel arguments in device memory save 2 to 3 microseconds a launch",
            source=VLLM_ROCM,
            scope="tune",
        ),
        Variable(
            name="HSA_NO_SCRATCH_RECLAIM",
            value="1",
            reason="scratch memory taken back between kernels costs a synchronisation each time",
            source=PRIMUS,
            scope="tune",
        ),
        Variable(
            name="TORCH_BLAS_PREFER_HIPBLASLT",
            value="1",
            reason="hipBLASLt has the tuned kernels for this GPU",
            source=VLLM_ROCM,
            scope="tune",
        ),
        Variable(
            name="TORCH_NCCL_HIGH_PRIORITY",
            value="1",
            reason="communication that waits behind compute stalls every rank",
            source=PRIMUS,
            scope="tune",
        ),
        Variable(
            name="NCCL_P2P_NET_CHUNKSIZE",
            value="524288",
            reason="larger chunks for point-to-point messages between hosts",
            source=PRIMUS,
            scope="tune",
        ),
        Variable(
            name="VLLM_ROCM_USE_AITER",
            value="1",
            reason="AITER's attention and matrix kernels are tuned for this GPU",
            source=VLLM_ROCM,
            scope="tune",
        ),
        Variable(
            name="SAFETENSORS_FAST_GPU",
            value="1",
            reason="weights are read straight to the device",
            source=VLLM_ROCM,
            scope="tune",
        ),
        Variable(
            name="NVTE_CK_USES_BWD_V3",
            value="1",
            reason="the faster backward pass of Transformer Engine's attention",
            source=PRIMUS,
            scope="tune",
        ),
        MEGATRON_CONNECTIONS,
        Variable(
            name="NCCL_DEBUG",
            value="WARN",
            reason="errors and nothing else",
            source="NCCL documentation",
            scope="tune",
        ),
        Variable(
            name="NCCL_DEBUG_SUBSYS",
            value="INIT,NET",
            reason="shows which network RCCL chose",
            source="NCCL documentation",
            scope="debug",
        ),
    ),
)
