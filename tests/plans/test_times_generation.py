"""The generation time model: decode, prefill and the tail."""

from __future__ import annotations

from dataclasses import replace

import pytest

from plans.times.device import read_devices
from plans.times.generation import (
    ReplicaSetting,
    batch_time,
    cache_bytes_per_token,
    decode_step_time,
    generation_time,
    most_sequences,
    prefill_time,
    weight_bytes,
)
from plans.times.lengths import lognormal_lengths
from plans.times.ops import Ops
from plans.times.rates import GenerateRates
from plans.times.shape import Shape

QWEN_7B = Shape(
    layers=28, hidden=3584, heads=28, kv_heads=4, head_size=128, inner=18944, vocab=152064
)
RATES = GenerateRates()
ONE = ReplicaSetting()


def ops(name: str = "H200") -> Ops:
    return Ops(read_devices()[name], RATES)


def test_weights_and_cache_are_those_vllm_reports() -> None:
    assert weight_bytes(QWEN_7B, ONE) == pytest.approx(15.23e9, rel=0.001)
    assert cache_bytes_per_token(QWEN_7B, ONE) == 57344
    assert cache_bytes_per_token(QWEN_7B, replace(ONE, tp=8)) == 2 * 57344


def test_a_decode_step_is_slower_than_reading_the_weights_once() -> None:
    limit = weight_bytes(QWEN_7B, ONE) / 4.8e12
    assert decode_step_time(QWEN_7B, ONE, ops(), RATES, 1, 512) > limit


def test_decode_steps_grow_with_sequences_and_with_context() -> None:
    steps = [
        decode_step_time(QWEN_7B, ONE, ops(), RATES, active, context)
        for active, context in ((1, 512), (32, 512), (32, 4096), (256, 4096))
    ]
    assert steps == sorted(steps)


def test_more_requests_than_the_cache_holds_run_in_waves() -> None:
    small = replace(RATES, most_sequences=64)
    table = Ops(read_devices()["H200"], small)
    assert most_sequences(QWEN_7B, ONE, table, small, 1024) == 64
    one = batch_time(QWEN_7B, ONE, table, small, 64, 512, 256)
    two = batch_time(QWEN_7B, ONE, table, small, 128, 512, 256)
    assert two.body == pytest.approx(2 * one.body)


def test_a_shared_prefix_is_read_once() -> None:
    once = prefill_time(QWEN_7B, ONE, ops(), RATES, 16 * 1024, 1024)
    each = prefill_time(QWEN_7B, ONE, ops(), RATES, 16 * 16 * 1024, 1024)
    assert each > 10 * once


def test_equal_lengths_have_no_tail_and_a_long_response_makes_one() -> None:
    equal = generation_time(QWEN_7B, ONE, ops(), RATES, 128, ((512.0, 64.0),), 64 * 128)
    spread = generation_time(
        QWEN_7B, ONE, ops(), RATES, 128, lognormal_lengths(64, 512, 4096), 64 * 128
    )
    assert equal.tail == 0
    assert spread.tail > 0
    assert spread.total > equal.total


def test_lengths_keep_their_mean_and_their_cap() -> None:
    lengths = lognormal_lengths(1000, 1024, 4096)
    assert sum(requests for _, requests in lengths) == pytest.approx(1000)
    mean = sum(tokens * requests for tokens, requests in lengths) / 1000
    assert mean == pytest.approx(1024, rel=0.01)
    assert max(tokens for tokens, _ in lengths) <= 4096
    assert [tokens for tokens, _ in lengths] == sorted(tokens for tokens, _ in lengths)
