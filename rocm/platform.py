"""The environments of AMD Instinct GPUs, each variable with its reason, source and probe.

Left out on purpose, though often seen in scripts: NCCL_CHECKS_DISABLE (without effect since
NCCL 2.2.12), RCCL_MSCCL_ENABLE (RCCL no longer has MSCCL), NCCL_PROTO and NCCL_DEBUG=TRACE
(for debugging), HSA_XNACK (never for training), and network card names, which belong to one
cluster. Nothing here was run: no AMD GPU was at hand.
"""

from __future__ import annotations

from collections.abc import Mapping

from plans.platform import HIP_MASK, Platform
from plans.variables import COMMON, MEGATRON_CONNECTIONS, NCCL_VARIABLES, Variable

ROCM_TUNING = "ROCm documentation, MI300X workload tuning"
VLLM_ROCM = "vLLM documentation, ROCm"
PRIMUS = "AMD Primus, base_env.sh"
FRONTIER = "OLCF user documentation, PyTorch on Frontier"

EVERY_GPU = (
    *COMMON,
    Variable(
        name="HSA_NO_SCRATCH_RECLAIM",
        value="1",
        reason="scratch memory taken back between kernels costs a synchronisation each time",
        source=PRIMUS,
        probe="step seconds with 0 and 1; 0 has also ended mixtures of experts in core dumps",
        scope="tune",
    ),
    Variable(
        name="SAFETENSORS_FAST_GPU",
        value="1",
        reason="weights are read straight to the device",
        source=VLLM_ROCM,
        probe="seconds of the start with 0 and 1",
        scope="tune",
    ),
    MEGATRON_CONNECTIONS,
    *NCCL_VARIABLES,
)
CDNA3 = (
    Variable(
        name="GPU_MAX_HW_QUEUES",
        value="2",
        reason="with more queues a process, kernels of compute and RCCL wait for each other",
        source=f"{ROCM_TUNING}; {PRIMUS}",
        probe="step seconds with 2 and with the default of 4",
        scope="tune",
    ),
    Variable(
        name="HIP_FORCE_DEV_KERNARG",
        value="1",
        reason="kernel arguments in device memory save 2 to 3 microseconds a launch",
        source=VLLM_ROCM,
        probe="tokens a second of a small batch with 0 and 1",
        scope="tune",
    ),
    Variable(
        name="TORCH_BLAS_PREFER_HIPBLASLT",
        value="1",
        reason="hipBLASLt has the tuned kernels for this GPU",
        source=VLLM_ROCM,
        probe="torch.backends.cuda.preferred_blas_library() says hipblaslt",
        scope="tune",
    ),
    Variable(
        name="TORCH_NCCL_HIGH_PRIORITY",
        value="1",
        reason="communication that waits behind compute stalls every rank",
        source=PRIMUS,
        probe="step seconds with tp > 1, with 0 and 1",
        scope="tune",
    ),
    Variable(
        name="NCCL_P2P_NET_CHUNKSIZE",
        value="524288",
        reason="larger chunks for point-to-point messages between hosts",
        source=PRIMUS,
        probe="seconds of update_actor with pp > 1 over several hosts",
        scope="tune",
    ),
    Variable(
        name="VLLM_ROCM_USE_AITER",
        value="1",
        reason="AITER's attention and matrix kernels are tuned for this GPU",
        source=VLLM_ROCM,
        probe="vLLM's log names AITER as the attention backend",
        scope="tune",
    ),
    Variable(
        name="NVTE_CK_USES_BWD_V3",
        value="1",
        reason="the faster backward pass of Transformer Engine's attention",
        source=PRIMUS,
        probe="step seconds with 0 and 1, where Transformer Engine is installed",
        scope="tune",
    ),
)
CDNA2 = (
    Variable(
        name="HSA_FORCE_FINE_GRAIN_PCIE",
        value="1",
        reason="GPUs reach each other and the network card directly over PCIe",
        source=FRONTIER,
        probe="the preflight's link rates, with and without",
        scope="tune",
    ),
    Variable(
        name="VLLM_ROCM_USE_AITER",
        value="0",
        reason="AITER has no kernels for gfx90a",
        source=VLLM_ROCM,
        probe="vLLM starts",
    ),
)

MI250X = Platform(name="rocm", mask=HIP_MASK, variables=(*EVERY_GPU, *CDNA2))
MI300X = Platform(name="rocm", mask=HIP_MASK, variables=(*EVERY_GPU, *CDNA3))
# gfx950 shares the settings that AMD gives for gfx942 (Primus uses one file for both).
MI355X = MI300X

BY_HARDWARE: Mapping[str, Platform] = {
    "mi250x-gcd": MI250X,
    "mi300x": MI300X,
    "mi325x": MI300X,
    "mi355x": MI355X,
}
