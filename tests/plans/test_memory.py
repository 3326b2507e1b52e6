"""The memory account, against measured bytes and against its own laws."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plans.dataflow import Role
from plans.layout import ParallelLayout
from plans.memory import (
    MemoryUse,
    activation_bytes,
    kv_bytes_per_token,
    memory_use,
    optimizer_bytes,
    rollout_weight_bytes,
    stage_memory,
    stage_parameters,
    switch_transient,
    train_resident,
    train_transient,
)
from plans.placement import RolloutSettings, TrainSettings
from plans.workload import colocated
from tests.plans.samples import job, large_job, model, workload

ONE_GPU = {"hardware": "h200-sxm", "nodes": 1}
ROLLING = RolloutSettings(concurrency=8, kv_cache_bytes=2**26, max_tokens=32)


def on_h200(prompt: int, response: int):
    chosen = large_job(tokens={"prompt": prompt, "response": response}, cluster=ONE_GPU)
    return workload(chosen, "7b")


def test_a_7b_trained_on_one_gpu_holds_18_bytes_a_parameter():
    """Measured: 68.78 GB a GPU for half of a 7B, bf16 with an fp32 optimizer, Megatron-core."""
    use = train_resident(on_h200(1024, 1024), ParallelLayout(tp=2), TrainSettings(micro_batch=1), 0)
    held = use.weights + use.gradients + use.optimizer
    assert held == 18 * stage_parameters(model("7b"), ParallelLayout(tp=2), 0, Role.ACTOR_TRAIN)
    assert held == pytest.approx(68.78e9, rel=0.01)


@pytest.mark.parametrize(
    ("tp", "sequences", "tokens", "recompute", "measured"),
    [
        (1, 1, 1024, "none", 6.11e9),
        (1, 4, 1024, "none", 22.12e9),
        (1, 1, 2048, "none", 11.11e9),
        (1, 4, 2048, "none", 44.13e9),
        (1, 4, 2048, "full", 9.34e9),
        (2, 4, 1024, "none", 11.18e9),
        (2, 4, 2048, "none", 22.22e9),
    ],
)
def test_activations_of_a_7b_are_near_those_measured(tp, sequences, tokens, recompute, measured):
    """Allocator readings on an H200, Megatron-core with TE, sequence parallel at tp 2."""
    settings = TrainSettings(micro_batch=sequences, recompute=recompute, sequence_parallel=tp > 1)
    wanted = on_h200(tokens // 2, tokens - tokens // 2)
    use = train_transient(wanted, ParallelLayout(tp=tp, dp=8 // tp), settings, "update_actor", 0)
    assert use.total == pytest.approx(measured, rel=0.25)


def test_a_token_of_a_7b_caches_57344_bytes():
    """As vLLM 0.24 reports it for Qwen2.5-7B at tp 1."""
    assert kv_bytes_per_token(on_h200(512, 512), 1) == 57_344
    assert kv_bytes_per_token(on_h200(512, 512), 2) == 28_672


def test_key_value_heads_are_copied_when_ranks_outnumber_them():
    wanted = workload(job())
    assert kv_bytes_per_token(wanted, 4) == kv_bytes_per_token(wanted, 2)


def test_the_distributed_optimizer_divides_its_states_over_the_replicas():
    wanted = workload(large_job(), "7b")
    settings = TrainSettings(micro_batch=1)
    whole = optimizer_bytes(wanted, 1000, ParallelLayout(dp=1), settings)
    assert whole == 12_000
    assert optimizer_bytes(wanted, 1000, ParallelLayout(dp=4), settings) == 3_000
    undivided = replace(settings, distributed_optimizer=False)
    assert optimizer_bytes(wanted, 1000, ParallelLayout(dp=4), undivided) == 12_000


def test_fp32_weights_need_no_master_copy():
    wanted = workload(job())
    assert wanted.precision == "fp32"
    assert optimizer_bytes(wanted, 1000, ParallelLayout(), TrainSettings(micro_batch=1)) == 8_000


def test_stages_share_the_layers_and_the_ends_hold_the_tables():
    spec = model("7b")
    halves = [stage_parameters(spec, ParallelLayout(pp=2), n, Role.ACTOR_TRAIN) for n in (0, 1)]
    assert sum(halves) == spec.parameter_count
    middle = stage_parameters(spec, ParallelLayout(pp=4), 1, Role.ACTOR_TRAIN)
    assert middle == 7 * spec.layer_parameters()


def test_a_tied_embedding_stands_twice_when_the_ends_are_apart():
    spec = model("0.5b")
    table = spec.padded_vocab_size * spec.hidden_size
    whole = stage_parameters(spec, ParallelLayout(), 0, Role.ACTOR_TRAIN)
    halves = [stage_parameters(spec, ParallelLayout(pp=2), n, Role.ACTOR_TRAIN) for n in (0, 1)]
    assert sum(halves) - whole == table


def test_a_critic_has_one_row_for_a_head():
    spec = model("7b")
    actor, critic = (
        stage_parameters(spec, ParallelLayout(), 0, role)
        for role in (Role.ACTOR_TRAIN, Role.CRITIC)
    )
    assert actor - critic == (spec.padded_vocab_size - 1) * spec.hidden_size


def test_equal_layouts_share_all_weights_but_the_reordered_qkv():
    wanted = workload(large_job(), "7b")
    spec = wanted.model
    same = rollout_weight_bytes(wanted, ParallelLayout(tp=2, dp=16), ParallelLayout(tp=2, dp=16))
    assert same == 2 * spec.qkv_parameters * spec.layer_count // 2
    one_group = ParallelLayout(tp=4, dp=8)
    assert rollout_weight_bytes(wanted, one_group, one_group) == 0
    other = rollout_weight_bytes(wanted, ParallelLayout(tp=2, dp=16), ParallelLayout(tp=1, dp=32))
    assert other == 2 * spec.parameter_count


def test_equal_layouts_need_no_staging():
    wanted = workload(large_job(), "7b")
    same = ParallelLayout(tp=2, dp=16)
    assert switch_transient(wanted, same, same) == MemoryUse()
    assert switch_transient(wanted, same, ParallelLayout(tp=1, dp=32)).switch > 0


def test_the_first_stage_keeps_as_many_micro_batches_as_there_are_stages():
    wanted = workload(large_job(), "7b")
    settings = TrainSettings(micro_batch=1)
    layout = ParallelLayout(pp=4, dp=8)
    first, last = (
        activation_bytes(wanted, layout, settings, stage, learns=True) for stage in (0, 3)
    )
    assert first == 4 * last


def test_scoring_keeps_one_layer_where_learning_keeps_all():
    wanted = workload(large_job(), "7b")
    settings, layout = TrainSettings(micro_batch=1), ParallelLayout(dp=32)
    learning = activation_bytes(wanted, layout, settings, 0, learns=True)
    assert learning == 28 * activation_bytes(wanted, layout, settings, 0, learns=False)


def test_a_reference_adds_weights_and_nothing_to_learn_with():
    settings, layout = TrainSettings(micro_batch=1), ParallelLayout(dp=2)
    plain = train_resident(workload(job()), layout, settings, 0)
    pulled_job = job(algorithm={"name": "grpo", "kl": {"weight": 0.1}})
    pulled = train_resident(workload(pulled_job), layout, settings, 0)
    assert pulled.weights == 2 * plain.weights
    assert (pulled.gradients, pulled.optimizer) == (plain.gradients, plain.optimizer)


@given(st.sampled_from([1, 2, 4]), st.sampled_from([1, 2]), st.sampled_from([1, 2, 4, 8]))
def test_recomputation_never_keeps_more(tp, pp, micro_batch):
    wanted = workload(large_job(), "7b")
    layout = ParallelLayout(tp=tp, pp=pp, dp=32 // tp // pp)
    kept = [
        activation_bytes(
            wanted, layout, TrainSettings(micro_batch=micro_batch, recompute=way), 0, learns=True
        )
        for way in ("full", "none")
    ]
    assert kept[0] <= kept[1]


def test_the_account_of_a_phase_is_that_of_its_fullest_stage():
    wanted = workload(job(cluster={"hardware": "cpu", "ranks": 4}))
    train = ParallelLayout(pp=2, dp=2)
    candidate = colocated(
        wanted, train, TrainSettings(micro_batch=2), ParallelLayout(dp=4), ROLLING
    )
    uses = [stage_memory(wanted, candidate, "update_actor", stage).total for stage in (0, 1)]
    assert memory_use(wanted, candidate, "update_actor").total == max(uses)
    one_of_each = MemoryUse(**dict.fromkeys(dict(MemoryUse().items()), 1))
    assert one_of_each.total == len(one_of_each.items())
