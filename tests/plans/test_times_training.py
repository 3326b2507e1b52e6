"""The training time model: limits that hold whatever the constants are."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from plans.times.device import read_devices
from plans.times.layer import TrainSetting, head_pass, layer_pass
from plans.times.ops import Ops
from plans.times.rates import TrainRates
from plans.times.shape import Latent, Shape
from plans.times.training import forward_time, pass_key, train_step_time

LLAMA_8B = Shape(
    layers=32, hidden=4096, heads=32, kv_heads=8, head_size=128, inner=14336, vocab=128256
)
DEEPSEEK_V3 = Shape(
    layers=61,
    hidden=7168,
    heads=128,
    kv_heads=128,
    head_size=128,
    inner=18432,
    vocab=129280,
    experts=256,
    experts_per_token=8,
    expert_inner=2048,
    shared_experts=1,
    dense_layers=3,
    latent=Latent(query_rank=1536, kv_rank=512, plain_head=128, rope_head=64, value_head=128),
)
RATES = TrainRates()
SETTING = TrainSetting(sequence=4096, micro_batch=1, micro_batches=16, dp=8)


def ops(name: str = "H100-SXM") -> Ops:
    return Ops(read_devices()[name], RATES)


def test_a_models_parameters_are_those_of_its_matrices() -> None:
    assert LLAMA_8B.parameters == pytest.approx(8.03e9, rel=0.001)
    assert DEEPSEEK_V3.parameters == pytest.approx(671e9, rel=0.002)
    assert DEEPSEEK_V3.active_parameters == pytest.approx(37e9, rel=0.02)


def test_the_parts_of_a_step_add_up_to_its_total() -> None:
    time = train_step_time(LLAMA_8B, SETTING, ops(), RATES)
    parts = (
        time.compute
        + time.exposed
        + time.bubble
        + time.stages
        + time.data
        + time.optimizer
        + time.host
        + time.slowdown
    )
    assert time.total == pytest.approx(parts)


def test_a_step_is_slower_than_its_products_at_the_peak_of_the_device() -> None:
    tokens = SETTING.micro_batch * SETTING.micro_batches * SETTING.sequence
    at_peak = 6 * LLAMA_8B.active_parameters * tokens / 989e12
    assert train_step_time(LLAMA_8B, SETTING, ops(), RATES).total > at_peak


def test_the_bubbles_share_vanishes_as_micro_batches_grow() -> None:
    piped = replace(SETTING, pp=4, dp=2)
    shares = []
    for count in (4, 16, 64, 1024):
        time = train_step_time(LLAMA_8B, replace(piped, micro_batches=count), ops(), RATES)
        shares.append(time.bubble / time.total)
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < 0.005


def test_interleaving_divides_the_bubble() -> None:
    piped = replace(SETTING, pp=4, dp=2)
    plain = train_step_time(LLAMA_8B, piped, ops(), RATES)
    chunked = train_step_time(LLAMA_8B, replace(piped, virtual=4), ops(), RATES)
    assert chunked.bubble == pytest.approx(plain.bubble / 4)


def test_one_rank_neither_communicates_nor_waits() -> None:
    time = train_step_time(LLAMA_8B, replace(SETTING, dp=1), ops(), RATES)
    assert time.exposed == time.data == time.stages == time.bubble == 0


def test_full_recomputation_costs_about_one_forward_pass() -> None:
    long = replace(SETTING, micro_batch=4)
    plain = train_step_time(LLAMA_8B, long, ops(), RATES).compute
    again = train_step_time(LLAMA_8B, replace(long, recompute="full"), ops(), RATES).compute
    assert 1.2 < again / plain < 1.4  # 1.247 measured on H200


def test_frozen_weights_save_a_third_of_the_products_and_the_gradients_transfer() -> None:
    whole = train_step_time(LLAMA_8B, SETTING, ops(), RATES)
    adapter = train_step_time(LLAMA_8B, replace(SETTING, adapter=True), ops(), RATES)
    assert 0.6 < adapter.compute / whole.compute < 0.8
    assert adapter.data == 0


def test_more_devices_of_data_parallelism_do_not_shorten_a_micro_batch() -> None:
    few = train_step_time(LLAMA_8B, replace(SETTING, dp=8), ops(), RATES)
    many = train_step_time(LLAMA_8B, replace(SETTING, dp=64), ops(), RATES)
    assert many.compute == pytest.approx(few.compute)
    assert many.data >= few.data


def test_a_forward_pass_takes_about_a_third_of_forward_and_backward() -> None:
    step = train_step_time(LLAMA_8B, replace(SETTING, micro_batch=4), ops(), RATES).compute
    forward = forward_time(LLAMA_8B, replace(SETTING, micro_batch=4), ops(), RATES)
    assert 0.27 < forward / step < 0.40  # 0.29 to 0.33 measured on H200


def test_experts_on_more_ranks_need_more_of_the_network() -> None:
    near = replace(SETTING, dp=64, ep=8)
    far = replace(SETTING, dp=64, ep=64)
    inside = train_step_time(DEEPSEEK_V3, near, ops(), RATES).exposed
    outside = train_step_time(DEEPSEEK_V3, far, ops(), RATES).exposed
    assert outside > inside


def test_a_kept_layer_depends_on_its_key_alone() -> None:
    """What the key leaves out, such as replicas and rounds, changes no layer and no head."""
    others: dict[str, object] = {
        "micro_batches": 7,
        "dp": 4,
        "pp": 2,
        "virtual": 2,
        "sharding": "none",
        "reduce_bytes": 2,
        "offload": True,
        "published": True,
        "even_stages": True,
        "bubble": 0.5,
    }
    plain, table = replace(SETTING, tp=2, cp=2, ep=2), ops()
    for name, value in others.items():
        changed = replace(plain, **{name: value})
        assert pass_key(DEEPSEEK_V3, changed) == pass_key(DEEPSEEK_V3, plain)
        for mixture in (False, True):
            one, two = (
                layer_pass(DEEPSEEK_V3, at, table, RATES, mixture) for at in (plain, changed)
            )
            assert one == two, name
        assert head_pass(DEEPSEEK_V3, plain, table, RATES) == head_pass(
            DEEPSEEK_V3, changed, table, RATES
        )
    # The key is the shape and every other field, so that a new one is in neither list.
    assert len(pass_key(DEEPSEEK_V3, plain)) - 1 + len(others) == len(fields(TrainSetting))
