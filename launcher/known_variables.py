"""Variables that scripts carry around, and what each is worth: dead, for debugging, of one site.

rlplan's own variables stand in plans/variables.py, plans/fabrics.py and rocm/platform.py.
"""

from __future__ import annotations

import re
from typing import Literal

from plans.values import frozen

Verdict = Literal["dead", "debug", "site", "harmful", "conditional", "launcher", "harmless"]


@frozen
class Known:
    """A variable by its pattern, optionally only with some values, and what is known of it."""

    name: str
    verdict: Verdict
    reason: str
    source: str
    value: str = ""

    def fits(self, name: str, value: str) -> bool:
        if not re.fullmatch(self.name, name):
            return False
        return not self.value or bool(re.fullmatch(self.value, value))


NCCL = "NCCL documentation, environment variables"
TORCH = "torch 2.13, ProcessGroupNCCL.hpp"

KNOWN = (
    Known(
        name="NCCL_CHECKS_DISABLE",
        verdict="dead",
        reason="without effect since NCCL 2.2.12; remove it",
        source=NCCL,
    ),
    Known(
        name="RCCL_MSCCL_ENABLE|RCCL_MSCCLPP_ENABLE",
        verdict="dead",
        reason="RCCL no longer has MSCCL; remove it",
        source="RCCL source",
    ),
    Known(
        name="TRANSFORMERS_CACHE|PYTORCH_TRANSFORMERS_CACHE|PYTORCH_PRETRAINED_BERT_CACHE",
        verdict="dead",
        reason="replaced by HF_HOME; remove it",
        source="Hugging Face documentation",
    ),
    Known(
        name="NCCL_ASYNC_ERROR_HANDLING|NCCL_BLOCKING_WAIT|NCCL_DESYNC_DEBUG",
        verdict="dead",
        reason="renamed to TORCH_NCCL_...; remove it, the default is right",
        source=TORCH,
    ),
    Known(
        name="TORCH_NCCL_AVOID_RECORD_STREAMS",
        verdict="dead",
        reason="the default behaviour today; remove it",
        source=TORCH,
    ),
    Known(
        name="NCCL_DEBUG",
        value="(?i)TRACE|INFO",
        verdict="debug",
        reason="floods the logs of a run; WARN shows errors",
        source=NCCL,
    ),
    Known(
        name="NCCL_DEBUG_SUBSYS|NCCL_DEBUG_FILE|NCCL_SET_THREAD_NAME",
        verdict="debug",
        reason="useful while looking for a fault, noise in a run",
        source=NCCL,
    ),
    Known(
        name="NCCL_PROTO|NCCL_ALGO|NCCL_LAUNCH_MODE|NCCL_(MIN|MAX)_NCHANNELS|NCCL_(N|MAX_)?THREADS",
        verdict="debug",
        reason="takes the choice from NCCL; small messages get slower, some versions hang",
        source=NCCL,
    ),
    Known(
        name="(CUDA|HIP)_LAUNCH_BLOCKING|AMD_SERIALIZE_KERNEL|TORCH_USE_(CUDA|HIP)_DSA",
        verdict="debug",
        reason="makes every kernel wait for the one before",
        source="CUDA programming guide; HIP documentation",
    ),
    Known(
        name="TORCH_(DISTRIBUTED_DEBUG|SHOW_CPP_STACKTRACES)|TORCH_LOGS|AMD_LOG_LEVEL",
        verdict="debug",
        reason="useful while looking for a fault, slow or noisy in a run",
        source="torch documentation, distributed debugging",
    ),
    Known(
        name="TORCH_NCCL_(DESYNC_DEBUG|NAN_CHECK|BLOCKING_WAIT)",
        verdict="debug",
        reason="costs a check or a wait each collective",
        source=TORCH,
    ),
    Known(
        name="NCCL_IB_HCA|NCCL_SOCKET_IFNAME|GLOO_SOCKET_IFNAME|TP_SOCKET_IFNAME|UCX_NET_DEVICES",
        verdict="site",
        reason="names of one cluster's cards; rlplan finds those of the host it runs on",
        source="measured: /sys/class/infiniband",
    ),
    Known(
        name="NCCL_IB_GID_INDEX",
        verdict="site",
        reason="right for one network; NCCL finds the index itself since 2.21",
        source="NCCL 2.31 source",
    ),
    Known(
        name="NCCL_CROSS_NIC",
        verdict="site",
        reason="0 is for networks in rails, 1 for Slingshot; the default 2 decides by itself",
        source=NCCL,
    ),
    Known(
        name="NCCL_IB_(TC|SL|TIMEOUT|RETRY_CNT|FIFO_TC|ROCE_VERSION_NUM|QPS_PER_CONNECTION)",
        verdict="site",
        reason="a property of one network; belongs into cluster.yaml under ours.environment",
        source="NCCL 2.31 source",
    ),
    Known(
        name="NCCL_NET(_PLUGIN|_GDR_LEVEL)?|NCCL_TOPO_FILE|NCCL_PXN_DISABLE|FI_.*|CXI_.*|RDMAV_.*",
        verdict="site",
        reason="a property of one network; belongs into cluster.yaml under ours.environment",
        source=NCCL,
    ),
    Known(
        name="NCCL_(P2P|SHM|IB)_DISABLE",
        value="1",
        verdict="harmful",
        reason="takes away a link that the plan counts on; the preflight will find it slow",
        source=NCCL,
    ),
    Known(
        name="HSA_XNACK|HSA_ENABLE_IPC_MODE_LEGACY",
        verdict="harmful",
        reason="changes how pages are shared; not for training",
        source="ROCm documentation",
    ),
    Known(
        name="HSA_ENABLE_SDMA",
        value="0",
        verdict="conditional",
        reason="a work-around for one fault; copies then take compute units",
        source="AMD Primus, base_env.sh",
    ),
    Known(
        name="VLLM_ALLOW_INSECURE_SERIALIZATION",
        value="1",
        verdict="harmful",
        reason="lets the network hand pickles to a rank",
        source="vLLM documentation, security",
    ),
    Known(
        name="VLLM_USE_V1",
        verdict="dead",
        reason="vLLM has one engine; remove it",
        source="vLLM 0.32, envs.py",
    ),
    Known(
        name="CUDA_DEVICE_MAX_CONNECTIONS",
        verdict="conditional",
        reason="1 for tensor parallelism before Blackwell; rlplan sets it",
        source="Megatron-core 0.16.1",
    ),
    Known(
        name="RAY_.*",
        verdict="launcher",
        reason="for Ray, which rlplan does not use; remove it",
        source="Ray documentation",
    ),
    Known(
        name="(HIP|ROCR|CUDA)_VISIBLE_DEVICES|GPU_DEVICE_ORDINAL|ZE_AFFINITY_MASK",
        verdict="launcher",
        reason="Slurm sets it and each rank puts it in order; a fixed list hides devices",
        source="Slurm documentation, gres.conf",
    ),
    Known(
        name="MASTER_(ADDR|PORT)|RANK|WORLD_SIZE|LOCAL_RANK|LOCAL_WORLD_SIZE|NODE_RANK",
        verdict="launcher",
        reason="the ranks agree on it through MPI; a fixed port collides with another job",
        source="measured",
    ),
    Known(
        name="HYDRA_FULL_ERROR|WANDB_MODE|WANDB_PROJECT|HF_HOME|HF_HUB_CACHE|HF_DATASETS_CACHE",
        verdict="harmless",
        reason="does nothing to a run of rlplan",
        source="",
    ),
    Known(
        name="NVTE_(FUSED|FLASH|UNFUSED)_ATTN|NVTE_DEBUG.*",
        verdict="debug",
        reason="takes the choice of the attention kernel from Transformer Engine",
        source="Transformer Engine documentation",
    ),
)

# Names whose values are nobody else's business.
SECRET = re.compile(r"(?i).*(token|secret|passw|credential|api_?key|private_key|access_key).*")
# They hold where a secret lies, and may stand anywhere.
SECRET_PLACE = re.compile(r"(?i).*(_path|_file|_dir|tokenizers?_.*|_ids?)")
ALLOCATORS = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")


def known(name: str, value: str) -> Known | None:
    """What is known of a variable with this value; None when nothing is."""
    return next((one for one in KNOWN if one.fits(name, value)), None)


def is_secret(name: str) -> bool:
    """Whether a variable of that name holds a secret, and not the place of one."""
    return bool(SECRET.fullmatch(name)) and not SECRET_PLACE.fullmatch(name)
