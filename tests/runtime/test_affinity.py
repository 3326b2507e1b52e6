"""GPUs, network cards and cores as /sys tells them, and what belongs together."""

import pytest

from runtime.affinity import affinity_of, hca_list, nearest_nic, usable_nics
from runtime.devices import gpu_of
from runtime.host import parse_cores, read_gpus, read_host, read_nics
from tests.runtime.topologies import h100, mi250x, mi300x, virtual

ALL = frozenset(range(256))


def test_core_lists_of_the_kernel_are_read():
    assert parse_cores("0-2,64") == {0, 1, 2, 64}
    assert parse_cores("") == frozenset()


def test_the_dies_of_mi250x_belong_to_the_cores_that_lumi_documents(tmp_path):
    gpus = read_gpus(mi250x(tmp_path))
    assert len(gpus) == 8
    near = [affinity_of(gpu, (), ALL, tmp_path) for gpu in gpus]
    assert [one.numa for one in near] == [3, 3, 1, 1, 0, 0, 2, 2]
    assert near[0].cores == {*range(48, 64), *range(112, 128)}
    assert near[4].cores == {*range(16), *range(64, 80)}


def test_the_nearest_card_is_the_one_behind_the_same_switch_whatever_its_name(tmp_path):
    host = read_host(mi300x(tmp_path))
    nearest = [nearest_nic(gpu, host.nics).name for gpu in host.gpus]
    assert nearest == [f"rdma{7 - number}" for number in range(8)]
    assert host.driver == "6.16.6"


def test_a_slow_card_for_storage_is_kept_from_nccl_by_exact_names(tmp_path):
    nics = read_nics(mi300x(tmp_path))
    assert hca_list(nics) == "=" + ",".join(f"rdma{number}" for number in range(8))


def test_a_port_that_is_down_is_no_ones_and_nccl_knows_by_itself(tmp_path):
    host = read_host(h100(tmp_path))
    assert [nic.name for nic in usable_nics(host.nics)] == [f"mlx5_{n}" for n in range(8) if n != 3]
    assert hca_list(host.nics) is None
    fourth = host.gpus[3]
    assert nearest_nic(fourth, host.nics).numa == fourth.numa == 0


def test_a_virtual_machine_without_numa_is_left_alone(tmp_path):
    gpu = read_gpus(virtual(tmp_path))[0]
    near = affinity_of(gpu, (), ALL, tmp_path)
    assert (near.cores, near.nic) == (frozenset(), None)
    assert "as in a virtual machine" in near.reason


@pytest.mark.parametrize(
    ("allowed", "reason"),
    [
        (frozenset(range(56, 112)), "none of the cores of NUMA node 0"),
        (frozenset(range(8)), "already on the cores"),
        (frozenset(range(112)), ""),
    ],
)
def test_cores_that_slurm_did_not_give_are_not_taken(allowed, reason, tmp_path):
    gpu = read_gpus(h100(tmp_path))[0]
    near = affinity_of(gpu, (), allowed, tmp_path)
    assert near.cores <= allowed
    assert reason in near.reason
    assert bool(reason) == bool(near.reason)


def test_a_gpu_is_found_by_what_torch_calls_it(tmp_path):
    nvidia = read_gpus(h100(tmp_path / "nvidia"))
    assert gpu_of("00000002-0000-1111-2222-333344445555", nvidia) == nvidia[2]
    assert gpu_of("ffffffff-0000-1111-2222-333344445555", nvidia) is None
    amd = read_gpus(mi250x(tmp_path / "amd"))
    letters = b"0000000000000005".hex()
    uuid = "-".join([letters[:8], letters[8:12], letters[12:16], letters[16:20], letters[20:]])
    assert gpu_of(uuid, amd) == amd[5]


def test_a_machine_without_gpus_tells_none(tmp_path):
    assert read_gpus(tmp_path) == ()
    assert read_nics(tmp_path) == ()


def test_the_limit_of_a_container_counts_and_not_the_memory_of_the_host(tmp_path):
    virtual(tmp_path)
    (tmp_path / "proc").mkdir(exist_ok=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 900 kB\nMemAvailable:  800 kB\n")
    assert read_host(tmp_path).memory_bytes == 800 * 1024
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("600000\n")
    (group / "memory.current").write_text("100000\n")
    assert read_host(tmp_path).memory_bytes == 500_000
    (group / "memory.max").write_text("max\n")
    assert read_host(tmp_path).memory_bytes == 800 * 1024
