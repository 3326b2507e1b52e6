"""Platforms: variables with their reasons, precedence over the user's, and device masks."""

import pytest

from launcher.platforms import PLATFORMS, platform_of
from plans.hardware import known_hardware, read_hardware
from plans.platform import CPU, CUDA, Platform, device_mask
from plans.source import UserError
from plans.variables import Variable


def variable(name, scope):
    return Variable(name=name, value="ours", reason="because", source="a book", scope=scope)


PLATFORM = Platform(
    name="cpu",
    variables=(variable("MUST", "must"), variable("TUNE", "tune"), variable("DEBUG", "debug")),
)


def test_the_users_setting_of_a_tuning_variable_wins():
    assert PLATFORM.environment({}) == {"MUST": "ours", "TUNE": "ours"}
    assert PLATFORM.environment({"TUNE": "mine", "MUST": "mine"}) == {"MUST": "ours"}


def test_debugging_variables_are_set_only_on_request():
    assert PLATFORM.environment({}, debug=True)["DEBUG"] == "ours"


def test_what_the_user_has_set_in_vain_is_known():
    told = PLATFORM.overruled({"MUST": "mine", "TUNE": "mine"})
    assert [one.name for one in told] == ["MUST"]
    assert PLATFORM.overruled({"MUST": "ours"}) == ()


@pytest.mark.parametrize("hardware", known_hardware())
def test_every_variable_has_a_reason_a_source_and_a_probe_and_stands_once(hardware):
    everything = platform_of(read_hardware(hardware)).on_one_host().variables
    assert all(one.name.isupper() and one.value and one.reason and one.source for one in everything)
    assert [one.name for one in everything if not one.probe] == []
    names = [one.name for one in everything]
    assert len(names) == len(set(names))


def test_no_platform_sets_an_allocator_or_a_debugging_protocol_for_good():
    for platform in PLATFORMS.values():
        names = platform.environment({})
        assert not {"NCCL_PROTO", "NCCL_ALGO", "PYTORCH_ALLOC_CONF"} & set(names)
        assert names.get("NCCL_DEBUG", "WARN") == "WARN"


def test_every_hardware_belongs_to_a_platform():
    for name in known_hardware():
        hardware = read_hardware(name)
        assert platform_of(hardware).name == hardware.platform


def test_the_generations_of_amd_differ_where_their_kernels_do():
    old, new = (platform_of(read_hardware(name)) for name in ("mi250x-gcd", "mi325x"))
    assert old.environment({"VLLM_ROCM_USE_AITER": "1"})["VLLM_ROCM_USE_AITER"] == "0"
    assert new.environment({})["VLLM_ROCM_USE_AITER"] == "1"
    assert "GPU_MAX_HW_QUEUES" not in old.environment({})


def test_the_engine_shares_the_process_on_every_platform():
    for platform in (CPU, CUDA):
        assert platform.environment({})["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"


def test_one_visibility_variable_is_left_on_nvidia():
    slurm = {
        "CUDA_VISIBLE_DEVICES": "0,1,2,3",
        "ROCR_VISIBLE_DEVICES": "0,1,2,3",
        "GPU_DEVICE_ORDINAL": "0,1,2,3",
    }
    mask = device_mask(slurm, "cuda", local_rank=2)
    assert mask.values == {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}
    assert {"ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL"} <= mask.removed
    assert mask.index == 2


def test_one_visibility_variable_is_left_on_amd():
    for slurm in (
        {"ROCR_VISIBLE_DEVICES": "4,5", "CUDA_VISIBLE_DEVICES": "4,5"},
        {"ROCR_VISIBLE_DEVICES": "4,5"},
        {"HIP_VISIBLE_DEVICES": "4,5"},
        {"CUDA_VISIBLE_DEVICES": "4,5"},
    ):
        mask = device_mask(slurm, "rocm", local_rank=1)
        assert mask.values == {"HIP_VISIBLE_DEVICES": "4,5"}
        assert {"ROCR_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"} <= mask.removed
        assert mask.index == 1


def test_without_a_mask_a_rank_takes_the_device_of_its_number():
    mask = device_mask({}, "cuda", local_rank=3)
    assert (dict(mask.values), mask.index) == ({}, 3)


def test_a_rank_that_sees_one_device_owns_it():
    assert device_mask({"CUDA_VISIBLE_DEVICES": "GPU-5d1a"}, "cuda", local_rank=3).index == 0


def test_masks_that_disagree_are_refused_by_name():
    masks = {"HIP_VISIBLE_DEVICES": "0", "CUDA_VISIBLE_DEVICES": "1"}
    with pytest.raises(UserError, match="HIP_VISIBLE_DEVICES=0 and CUDA_VISIBLE_DEVICES=1 differ"):
        device_mask(masks, "rocm", local_rank=0)
    masks = {"ROCR_VISIBLE_DEVICES": "4,5", "HIP_VISIBLE_DEVICES": "0,1"}
    with pytest.raises(UserError, match="counts among the devices of the first"):
        device_mask(masks, "rocm", local_rank=0)


def test_more_ranks_than_visible_devices_are_refused():
    with pytest.raises(UserError, match="2 devices, but this is the host's rank 2"):
        device_mask({"CUDA_VISIBLE_DEVICES": "0,1"}, "cuda", local_rank=2)
