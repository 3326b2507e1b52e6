"""The networks between hosts, and the variables each wants; set where a host shows the network.

NCCL finds InfiniBand and RoCE by itself; Slingshot, EFA and AMD's AINIC need their settings.
All are to `tune`: what a site or a user has set stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from plans.variables import Variable

Fabric = Literal["none", "infiniband", "roce", "slingshot", "efa", "ainic"]
FRONTIER = "OLCF user documentation, PyTorch on Frontier"
LUMI = "LUMI AI guide"
PRIMUS = "AMD Primus, base_env.sh"
EFA = "AWS documentation, EFA with NCCL"
RATES = "the preflight's link rates, with and without"


def _tune(name: str, value: str, reason: str, source: str, probe: str = RATES) -> Variable:
    return Variable(name=name, value=value, reason=reason, source=source, probe=probe, scope="tune")


VARIABLES: Mapping[Fabric, tuple[Variable, ...]] = {
    "none": (),
    "infiniband": (),
    "roce": (),
    "slingshot": (
        _tune("NCCL_CROSS_NIC", "1", "rings may change the card between hosts", FRONTIER),
        _tune("NCCL_NET_GDR_LEVEL", "PHB", "cards reach GPUs across the host bridge", FRONTIER),
        _tune(
            "NCCL_NET",
            "AWS Libfabric",
            "a missing plug-in then fails, and does not fall back to TCP",
            FRONTIER,
            "the preflight fails where aws-ofi-nccl (or -rccl) is not on LD_LIBRARY_PATH",
        ),
        _tune(
            "FI_MR_CACHE_MONITOR",
            "userfaultfd",
            "the default, memhooks, deadlocks with NCCL",
            f"{FRONTIER}; olcf-user-docs issue 947",
            "a run of hours without a hang in a collective",
        ),
        _tune("FI_CXI_DEFAULT_CQ_SIZE", "131072", "large worlds overflow shorter queues", FRONTIER),
        _tune("FI_CXI_DEFAULT_TX_SIZE", "2048", "large worlds overflow shorter queues", FRONTIER),
        _tune(
            "FI_CXI_DISABLE_HOST_REGISTER",
            "1",
            "registering host memory with the GPU deadlocks",
            FRONTIER,
        ),
        _tune(
            "CXI_FORK_SAFE",
            "1",
            "a child process would take registered pages with it",
            LUMI,
            "a run that starts child processes ends well",
        ),
    ),
    "efa": (
        _tune("FI_PROVIDER", "efa", "libfabric would try slower providers first", EFA),
        _tune("FI_EFA_USE_DEVICE_RDMA", "1", "cards reach GPU memory directly", EFA),
        _tune(
            "FI_EFA_FORK_SAFE",
            "1",
            "a child process would take registered pages with it",
            EFA,
            "a run that starts child processes ends well",
        ),
    ),
    "ainic": (
        _tune("NCCL_IB_GID_INDEX", "1", "the index of RoCE v2 on these cards", PRIMUS),
        _tune("NCCL_IB_TC", "104", "the traffic class that is lossless there", PRIMUS),
        _tune("NCCL_IB_FIFO_TC", "192", "the traffic class of control messages", PRIMUS),
        _tune("NCCL_IB_ROCE_VERSION_NUM", "2", "RoCE v2", PRIMUS),
    ),
}


def settings(fabric: Fabric, user: Mapping[str, str]) -> dict[str, str]:
    """What to set for a fabric beside what the user and the site have set."""
    return {one.name: one.value for one in VARIABLES[fabric] if one.name not in user}
