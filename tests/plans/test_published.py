"""Plans against what others found: a paper's best rollouts, configurations known to run."""

from dataclasses import replace

import pytest

from plans.costs.tables import Costs
from plans.dataflow import Role, roles_of
from plans.hardware import read_hardware
from plans.layout import ParallelLayout
from plans.model import from_config
from plans.space import FULL
from plans.workload import Workload
from tests.plans.samples import large_job

ACTOR, ROLLOUT = Role.ACTOR_TRAIN, Role.ACTOR_ROLLOUT
# hidden, MLP, layers, heads, key/value heads, vocabulary of each config.json
SHAPES = {
    "llama-7b": (4096, 11008, 32, 32, 32, 32000),
    "llama-13b": (5120, 13824, 40, 40, 40, 32000),
    "llama-34b": (8192, 22016, 48, 64, 8, 32000),
    "llama-70b": (8192, 28672, 80, 64, 8, 32000),
    "qwen2-7b": (3584, 18944, 28, 28, 4, 152064),
    "qwen2-14b": (5120, 13824, 48, 40, 8, 152064),
    "qwen2-32b": (5120, 27648, 64, 40, 8, 152064),
    "qwen2-72b": (8192, 29568, 80, 64, 8, 152064),
}


def decoder(name):
    hidden, inner, layers, heads, kv_heads, vocab = SHAPES[name]
    config = {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocab,
        "tie_word_embeddings": False,
        "max_position_embeddings": 8192,
    }
    return from_config(config, f"{name}/config.json")


def work(name, cluster, algorithm, **hardware):
    chosen = large_job(
        algorithm=algorithm,
        batch={"prompts": 1024, "samples": 1 if algorithm["name"] == "ppo" else 5},
        # that paper has every response as long as the limit
        tokens={"prompt": 1024, "response": 1024, "mean_response": 1024},
        cluster=cluster,
        data={"train": "t.jsonl"},
    )
    spec = replace(read_hardware(cluster["hardware"]), **hardware)
    return Workload(job=chosen, model=decoder(name), hardware=spec)


def room(costs, picks, rollout):
    """Bytes that are left at the fuller end when these choices share their ranks."""
    switch = costs.switch(picks[0], rollout, together=True)
    every = (*picks, rollout)
    return costs.capacity() - max(
        sum(one.resident[end] for one in every)
        - switch.shared[end]
        + max(switch.staging[end], *(one.transient[end] for one in every))
        for end in (0, 1)
    )


def generation_seconds(name):
    """Of each rollout tp on 16 A100s, trained at tp 8, with all the memory that is left.

    The optimizer's states are on the host meanwhile, as that system moves what does not work.
    """
    wanted = work(name, {"hardware": "a100-sxm-80", "nodes": 2}, {"name": "ppo"})
    costs, layout = Costs(wanted, FULL), ParallelLayout(tp=8, dp=2)
    picks = [
        min(
            (
                one
                for one in costs.choices_in(role, layout)
                if one.train.micro_batch == 1 and one.train.optimizer_offload
            ),
            key=lambda one: max(one.transient),
        )
        for role in (ACTOR, Role.CRITIC)
    ]
    found = {}
    for tp in (1, 2, 4, 8):
        choices = costs.choices_in(ROLLOUT, ParallelLayout(tp=tp, dp=16 // tp))
        fitting = [one for one in choices if room(costs, picks, one) >= 0]
        switches = [costs.switch(picks[0], one, together=True).seconds for one in fitting]
        both = zip(fitting, switches, strict=True)
        found[tp] = min(sum(one.seconds) + switch for one, switch in both)
    return found


@pytest.mark.parametrize(("name", "best"), [("llama-7b", 2), ("llama-13b", 4)])
def test_the_best_rollout_degree_on_16_a100s_is_hybridflows(name, best):
    """HybridFlow (Sheng et al. 2025), figure 15: 2 for a 7B and 4 for a 13B, trained at tp 8."""
    seconds = generation_seconds(name)
    assert min(seconds, key=lambda tp: seconds[tp]) == best
    assert seconds[8] > seconds[best]


@pytest.mark.parametrize(
    ("name", "nodes", "pp", "g"),
    [
        ("llama-7b", 2, 1, 2),
        ("llama-13b", 2, 1, 4),
        ("llama-34b", 8, 4, 8),
        ("llama-70b", 16, 8, 8),
    ],
)
def test_the_layouts_of_hybridflow_fit(name, nodes, pp, g):
    """Its figure 14: training t 8 and these p, generation t_g; PPO, all colocated on A100s."""
    cluster = {"hardware": "a100-sxm-80", "nodes": nodes}
    wanted = work(name, cluster, {"name": "ppo", "kl": {"weight": 0.1}})
    costs, ranks = Costs(wanted, FULL), 8 * nodes
    layout = ParallelLayout(tp=8, pp=pp, dp=nodes // pp)
    assert fits(costs, roles_of(wanted.job), [layout], [ParallelLayout(tp=g, dp=ranks // g)])


@pytest.mark.parametrize(
    ("name", "ranks", "memory"),
    [
        ("qwen2-7b", 2, 79.6),
        ("qwen2-14b", 4, 79.6),
        ("qwen2-32b", 8, 95.6),
        ("qwen2-72b", 32, 79.6),
        ("qwen2-72b", 32, 95.6),
    ],
)
def test_the_smallest_machines_of_verl_are_enough(name, ranks, memory):
    """verl's page "Hardware Resource Needed for RL": GRPO on 2, 4 and 32 H800, 8 and 32 H20."""
    cluster = {"hardware": "h100-sxm", "nodes": -(-ranks // 8), "ranks": ranks}
    pulled = {"name": "grpo", "kl": {"weight": 0.001}}
    wanted = work(name, cluster, pulled, memory_gib=memory)
    costs, roles = Costs(wanted, FULL), roles_of(wanted.job)
    layouts = costs.layouts(ACTOR, ranks).legal
    assert fits(costs, roles, layouts, costs.layouts(ROLLOUT, ranks).legal)


def fits(costs, roles, layouts, rollouts):
    """Whether some settings of some of the layouts leave no rank without memory."""
    for layout in layouts:
        picks = [
            min(
                costs.choices_in(role, layout),
                key=lambda one: max(one.resident) + max(one.transient),
            )
            for role in roles
            if role != ROLLOUT
        ]
        for rollout in rollouts:
            leanest = costs.choices_in(ROLLOUT, rollout)[-1]
            if room(costs, picks, leanest) >= 0:
                return True
    return False
