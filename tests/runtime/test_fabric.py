"""Which network a host has, and what NCCL is told of it."""

import pytest

from plans.fabrics import VARIABLES, settings
from runtime.fabric import fabric_of, network_settings
from tests.runtime.topologies import Slot, h100, mi300x, virtual, write_host

CARD = Slot(("pci0000:00", "0000:01:00.0"), 0)


def host(root, name):
    return write_host(
        root, vendor="0x1002", kind="0x120000", gpus=[], nics=[(name, CARD, "4: ACTIVE", 400)]
    )


def slingshot(root):
    (root / "sys/class/cxi/cxi0").mkdir(parents=True)
    return root


@pytest.mark.parametrize(
    ("make", "fabric"),
    [
        (h100, "infiniband"),
        (virtual, "none"),
        (slingshot, "slingshot"),
        (lambda root: host(root, "rdmap79s0"), "efa"),
        (lambda root: host(root, "ionic_0"), "ainic"),
    ],
)
def test_a_network_is_known_by_its_devices(make, fabric, tmp_path):
    assert fabric_of(make(tmp_path)) == fabric


def test_ethernet_that_carries_rdma_is_roce(tmp_path):
    root = host(tmp_path, "mlx5_0")
    (port,) = root.glob("sys/devices/**/ports/1/link_layer")
    port.write_text("Ethernet\n")
    assert fabric_of(root) == "roce"


def test_slingshot_is_told_not_to_fall_back_and_the_sites_words_stand(tmp_path):
    root = slingshot(tmp_path)
    assert network_settings({}, root)["NCCL_NET"] == "AWS Libfabric"
    assert "FI_MR_CACHE_MONITOR" not in network_settings({"FI_MR_CACHE_MONITOR": "kdreg2"}, root)


def test_cards_for_storage_are_named_away_unless_the_user_chose(tmp_path):
    root = mi300x(tmp_path)
    assert network_settings({}, root)["NCCL_IB_HCA"].startswith("=rdma0,rdma1")
    assert network_settings({"NCCL_IB_HCA": "rdma3"}, root) == {}


def test_nccl_finds_infiniband_without_our_help(tmp_path):
    assert network_settings({}, h100(tmp_path)) == {}


@pytest.mark.parametrize("fabric", VARIABLES)
def test_every_setting_of_a_network_has_reason_source_and_probe(fabric):
    assert all(one.reason and one.source and one.probe for one in VARIABLES[fabric])
    assert settings(fabric, {one.name: "mine" for one in VARIABLES[fabric]}) == {}
