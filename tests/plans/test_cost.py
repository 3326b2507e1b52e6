"""Seconds, against measured ones and against laws that hold for any constants."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plans.cost import (
    Cost,
    all_reduce_cost,
    decode_cost,
    forward_cost,
    layer_flops,
    link_between,
    matrix_cost,
    prefill_cost,
)
from plans.dataflow import Role
from plans.layout import ParallelLayout
from plans.placement import RolloutSettings, TrainSettings
from plans.timeline import generate_cost, learn_cost, outside_times, reshard_cost, score_cost
from plans.workload import colocated
from tests.plans.samples import job, large_job, model, workload

H200 = {"hardware": "h200-sxm", "nodes": 1}


def on_h200(name: str, prompt: int, response: int):
    chosen = large_job(tokens={"prompt": prompt, "response": response}, cluster=H200)
    return workload(chosen, name)


@pytest.mark.parametrize(
    ("name", "tp", "rows", "milliseconds"),
    [
        ("7b", 1, 1, 4.834),
        ("7b", 1, 32, 5.320),
        ("7b", 1, 128, 6.974),
        ("7b", 1, 256, 10.726),
        ("7b", 2, 1, 3.244),
        ("7b", 2, 32, 3.702),
        ("7b", 2, 128, 4.901),
        ("7b", 2, 256, 7.087),
        ("0.5b", 1, 1, 1.263),
        ("0.5b", 1, 32, 1.491),
        ("0.5b", 1, 128, 2.683),
        ("0.5b", 1, 256, 4.170),
    ],
)
def test_decoding_is_near_what_vllm_needs_on_an_h200(name, tp, rows, milliseconds):
    """vLLM 0.24 with CUDA graphs, 512 prompt tokens and 256 new ones: 640 visible on average."""
    planned = decode_cost(on_h200(name, 512, 256), tp, rows, 640).seconds
    assert planned == pytest.approx(milliseconds / 1000, rel=0.18)


@pytest.mark.parametrize(
    ("tp", "sequences", "tokens", "milliseconds"),
    [(1, 4, 1024, 335.0), (1, 1, 2048, 183.7), (1, 4, 2048, 642.3), (2, 4, 2048, 353.2)],
)
def test_training_is_near_what_megatron_needs_on_an_h200(tp, sequences, tokens, milliseconds):
    """Megatron-core 0.16.1 with TE, forward and backward of a micro-batch of a 7B."""
    wanted = on_h200("7b", tokens // 2, tokens - tokens // 2)
    once = forward_cost(wanted, ParallelLayout(tp=tp, dp=8 // tp), sequences * tokens)
    assert 3 * once.seconds == pytest.approx(milliseconds / 1000, rel=0.12)


@pytest.mark.parametrize(("tp", "rate"), [(1, 47_599), (2, 82_400)])
def test_prefill_is_near_what_vllm_reaches_on_an_h200(tp, rate):
    seconds = prefill_cost(on_h200("7b", 512, 256), tp, 128 * 512, 512).seconds
    assert 128 * 512 / seconds == pytest.approx(rate, rel=0.05)


def test_a_7b_forward_is_two_flops_a_parameter_beside_attention():
    spec = model("7b")
    layers = spec.layer_count * layer_flops(spec, 1, 0)
    tables = 2 * spec.vocab_size * spec.hidden_size
    assert layers == pytest.approx(2 * (spec.parameter_count - tables), rel=1e-3)


def test_small_matrices_are_bound_by_memory_and_large_ones_by_arithmetic():
    wanted = on_h200("7b", 512, 256)
    assert matrix_cost(wanted, 1e9, 1e9, 0.6).bound == "memory"
    assert matrix_cost(wanted, 1e15, 1e9, 0.6).bound == "compute"
    assert matrix_cost(wanted, 0, 0, 0.6) == Cost()


def test_a_group_of_one_has_nothing_to_reduce():
    assert all_reduce_cost(workload(job()), 1, 1, 1e9) == Cost()


def test_groups_that_leave_a_node_use_the_slower_link():
    wanted = workload(large_job(), "7b")
    assert link_between(wanted, 8) == wanted.hardware.inner
    assert link_between(wanted, 9) == wanted.hardware.outer


@given(st.integers(0, 12))
def test_the_bubble_shrinks_as_micro_batches_grow(doublings):
    """1F1B: (p - 1)/m of the ideal time is lost (Narayanan et al. 2021)."""
    prompts = 2**doublings
    wanted = workload(
        job(batch={"prompts": prompts, "samples": 4}, cluster={"hardware": "cpu", "ranks": 2})
    )
    layout, settings = ParallelLayout(pp=2), TrainSettings(micro_batch=1)
    m = prompts * 4
    slot = score_cost(wanted, layout, settings).seconds / (m + 1)
    assert score_cost(wanted, layout, settings).seconds == pytest.approx(m * slot * (1 + 1 / m))


def test_equal_layouts_switch_without_the_network():
    wanted = workload(large_job(), "7b")
    same = ParallelLayout(tp=4, dp=8)
    assert reshard_cost(wanted, same, same).network == 0


def test_a_switch_from_eight_to_two_receives_three_eighths_of_the_model():
    wanted = workload(large_job(), "7b")
    seconds = reshard_cost(wanted, ParallelLayout(tp=8, dp=4), ParallelLayout(tp=2, dp=16)).network
    link = wanted.hardware.inner
    received = (seconds - link.latency_seconds) * link.bytes_per_second
    assert received == pytest.approx(3 / 8 * 2 * wanted.model.parameter_count)


def test_more_sequences_than_fit_at_once_run_in_waves():
    wanted = workload(large_job(), "7b")
    layout = ParallelLayout(tp=2, dp=16)
    seconds = [
        generate_cost(
            wanted,
            layout,
            RolloutSettings(concurrency=count, kv_cache_bytes=2**30, max_tokens=4096),
        ).seconds
        for count in (64, 128, 256)
    ]
    assert seconds == sorted(seconds, reverse=True)


def test_full_recomputation_costs_a_forward_pass_more():
    wanted = workload(large_job(), "7b")
    layout = ParallelLayout(tp=2, dp=16)
    plain, again = (
        learn_cost(
            wanted,
            layout,
            TrainSettings(micro_batch=1, recompute=way),
            Role.ACTOR_TRAIN,
            wanted.mini_batch,
        ).seconds
        for way in ("none", "full")
    )
    assert 1.2 < again / plain < 1.34


@given(st.sampled_from([1, 2, 4, 8]))
def test_a_larger_batch_never_takes_less_time(factor):
    small, large = (
        workload(large_job(batch={"prompts": 64 * n, "samples": 8}), "7b") for n in (1, factor)
    )
    layout, settings = ParallelLayout(tp=2, dp=16), TrainSettings(micro_batch=1)
    assert (
        score_cost(small, layout, settings).seconds <= score_cost(large, layout, settings).seconds
    )


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, ["start", "evaluate", "checkpoint"]),
        ({"data": {"train": "t.jsonl"}}, ["start", "checkpoint"]),
        ({"supervised": {"steps": 5}}, ["start", "supervised", "evaluate", "checkpoint"]),
    ],
)
def test_only_what_a_job_does_outside_of_its_steps_is_planned(changes, names):
    wanted = workload(job(**changes))
    candidate = colocated(
        wanted,
        ParallelLayout(dp=2),
        TrainSettings(micro_batch=8),
        ParallelLayout(dp=2),
        RolloutSettings(concurrency=32, kv_cache_bytes=2**26, max_tokens=32),
    )
    times = outside_times(wanted, candidate)
    assert [time.name for time in times] == names
    assert all(0 < time.cost.seconds < inf for time in times)


def test_a_switch_to_a_finer_cut_moves_what_the_schedule_moves():
    train, rollout = ParallelLayout(tp=2, pp=2), ParallelLayout(tp=4)
    wanted = workload(large_job(cluster=H200))
    planned = reshard_cost(wanted, train, rollout).network
    link = link_between(wanted, 4)
    share = (planned - link.latency_seconds) * link.bytes_per_second
    # a rank needs a quarter and holds half of it: its own stage's layers
    assert share == pytest.approx(2 * wanted.model.parameter_count / 8)
