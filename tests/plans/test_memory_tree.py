"""Memory by module: published formulas, allocator readings, laws and verdicts."""

from dataclasses import replace

import pytest

from plans.bytes.account import Kind, fullest, verdict
from plans.bytes.execution import Execution
from plans.bytes.schedule import in_flight
from plans.bytes.serving import Serving, cache_bytes, serving_account, switched
from plans.bytes.shape import shape_of
from plans.bytes.training import scoring_accounts, training_accounts
from plans.times.shape import Shape
from plans.units import GIB
from tests.plans.samples import model
from tests.plans.test_model_families import DEEPSEEK_V3, QWEN3_30B

QWEN_7B = shape_of(model("7b"))
QWEN_HALF_B = shape_of(model("0.5b"))
MEGATRON_22B = Shape(
    layers=48,
    hidden=6144,
    heads=64,
    kv_heads=64,
    head_size=96,
    inner=24576,
    vocab=51200,
    gated=False,
    tied=True,
)


def mixture(config):
    from plans.model import from_config

    return shape_of(from_config(config, "config.json"))


def peak(shape, **changes):
    return fullest(training_accounts(shape, Execution(**changes)))


@pytest.mark.parametrize(
    ("shape", "changes", "gigabytes"),
    [
        (QWEN_7B, {"micro_batch": 4}, 44.13),
        (QWEN_7B, {"micro_batch": 4, "recompute": "full"}, 9.34),
        (QWEN_7B, {"micro_batch": 4, "tp": 2, "sequence_parallel": True}, 22.22),
        (QWEN_7B, {"micro_batch": 4, "tp": 2}, 25.46),
        (QWEN_7B, {"tp": 2}, 6.47),
        (QWEN_HALF_B, {"micro_batch": 8}, 31.02),
        (QWEN_HALF_B, {"micro_batch": 4, "tp": 2, "sequence_parallel": True}, 7.85),
    ],
)
def test_activations_are_those_that_megatron_core_allocates_on_an_h200(shape, changes, gigabytes):
    """Peak less static memory; Megatron-core 0.16.1, Transformer Engine, sequences of 2048."""
    found = peak(shape, sequence=2048, **changes).of(Kind.ACTIVATIONS, Kind.LOGITS)
    assert found / 1e9 == pytest.approx(gigabytes, rel=0.03)


@pytest.mark.parametrize(
    ("recompute", "sequence_parallel", "gibibytes"),
    [("none", False, 59.25), ("selective", True, 9.5625)],
)
def test_activations_follow_korthikanti_figure_1(recompute, sequence_parallel, gibibytes):
    found = peak(
        MEGATRON_22B,
        sequence=2048,
        micro_batch=4,
        tp=8,
        recompute=recompute,
        sequence_parallel=sequence_parallel,
        flash=False,
        dropout=True,
        logit_bytes=0,
    )
    assert found.of(Kind.ACTIVATIONS) / GIB == pytest.approx(gibibytes, rel=1e-9)


def test_states_are_18_bytes_a_parameter_and_6_where_optimizers_are_spread_thin():
    lasting = (Kind.WEIGHTS, Kind.GRADIENTS, Kind.OPTIMIZER)
    alone = peak(QWEN_7B, sequence=1).of(*lasting)
    assert alone == pytest.approx(18 * QWEN_7B.parameters)
    spread = peak(QWEN_7B, sequence=1, dp=10**6).of(*lasting)
    assert spread == pytest.approx(6 * QWEN_7B.parameters, rel=1e-4)


def test_stages_together_hold_the_model_once():
    for config in (QWEN3_30B, DEEPSEEK_V3):
        shape = mixture(config)
        whole = peak(shape, sequence=1).of(Kind.WEIGHTS)
        assert whole == pytest.approx(2 * shape.parameters, rel=1e-3)


def test_experts_are_divided_by_expert_parallelism_and_by_nothing_else():
    shape = mixture(QWEN3_30B)
    weights = [
        fullest(training_accounts(shape, Execution(sequence=1, dp=8, ep=ep))).by_module(depth=2)
        for ep in (1, 8)
    ]
    assert weights[0]["layers.attention"] == weights[1]["layers.attention"]
    assert weights[1]["layers.experts"] < weights[0]["layers.experts"]


def test_more_of_anything_that_divides_never_needs_more():
    plain = Execution(sequence=4096, recompute="none", sequence_parallel=True)
    for shape in (QWEN_7B, mixture(QWEN3_30B), mixture(DEEPSEEK_V3)):
        before = fullest(training_accounts(shape, plain)).total
        for change in ({"tp": 2}, {"dp": 4}, {"cp": 2}, {"recompute": "full"}, {"pp": 2}):
            after = fullest(training_accounts(shape, replace(plain, **change))).total
            assert after <= before * 1.0001, change


def test_micro_batches_in_flight_are_those_of_their_schedule():
    def flying(stage=0, **changes):
        return in_flight(Execution(sequence=1, pp=8, **changes), stage)

    assert flying() == 8
    assert flying(stage=7) == 1
    assert flying(micro_batches=2) == 2
    assert flying(schedule="interleaved", vpp=3) / 8 == pytest.approx(1 + 7 / 24)
    assert flying(schedule="v-min") < flying(schedule="v-half") < flying(schedule="zero-bubble")


def test_uneven_stages_move_layers_off_the_ends():
    even = training_accounts(QWEN_7B, Execution(sequence=4096, pp=4))
    light = training_accounts(QWEN_7B, Execution(sequence=4096, pp=4, first_layers=5))
    assert light[0].total < even[0].total


def test_the_verdict_names_phase_stage_and_the_line_that_breaks():
    accounts = training_accounts(QWEN_7B, Execution(sequence=8192, micro_batch=4, tp=2, pp=2))
    found = verdict(accounts, 80 * GIB)
    assert not found.fits
    assert (found.account.phase, found.account.stage) == ("train", 0)
    assert (found.breaks.module, found.breaks.kind) == ("layers.mlp", Kind.ACTIVATIONS)
    assert found.missing_bytes == found.account.total - 80 * GIB
    assert verdict(accounts, found.account.total).fits


def test_offloaded_optimizers_weigh_on_the_host():
    found = peak(QWEN_7B, sequence=1, optimizer_offload=True)
    assert found.of(Kind.OPTIMIZER) == pytest.approx(4 * QWEN_7B.parameters)
    assert found.host_total == pytest.approx(8 * QWEN_7B.parameters)


def test_scoring_needs_neither_gradients_nor_all_layers():
    scored = fullest(scoring_accounts(QWEN_7B, Execution(sequence=8192)))
    assert scored.of(Kind.GRADIENTS, Kind.OPTIMIZER) == 0
    assert scored.of(Kind.ACTIVATIONS) < peak(QWEN_7B, sequence=8192).of(Kind.ACTIVATIONS) / 20


def test_the_cache_is_what_vllm_reports_for_each_token():
    """57,344 bytes for a 7B, 12,288 for a 0.5B, measured with vLLM 0.24."""
    one = Serving(tp=1, cached_tokens=1, sequences=1, prefill_tokens=1)
    assert cache_bytes(QWEN_7B, one) == 57_344
    assert cache_bytes(QWEN_HALF_B, one) == 12_288
    assert cache_bytes(QWEN_7B, replace(one, tp=8)) == 57_344 / 4
    latent = mixture(DEEPSEEK_V3)
    assert cache_bytes(latent, replace(one, tp=8)) == 2 * 576 * 61


def test_a_switch_replaces_the_live_tensors_by_its_staging():
    serving = Serving(tp=2, cached_tokens=1000, sequences=8, prefill_tokens=4096)
    before = serving_account(QWEN_7B, serving)
    during = switched(before, staging_bytes=256 * 2**20)
    assert during.of(Kind.SWITCH) == 256 * 2**20
    assert during.of(Kind.ACTIVATIONS, Kind.LOGITS) == 0
    assert during.of(Kind.WEIGHTS) == before.of(Kind.WEIGHTS)
