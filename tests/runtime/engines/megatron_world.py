"""What the Megatron worker scripts share: a world over MPI's ranks, tiny models, batches."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.distributed as dist

from plans.layout import ParallelLayout
from plans.model import ModelSpec, from_config
from plans.placement import TrainSettings
from plans.spec import OptimizerSpec
from runtime.batch import Sequences
from runtime.engines.megatron import MegatronEngine, MegatronScorer

VOCABULARY = 200
LENGTH = 24

# families with what can go wrong in each: biases and vocabulary padding, grouped heads and
# another rope base, norms of q and k, one embedding for both ends
FAMILIES = {
    "qwen2": ("Qwen2", {}),
    "llama": ("Llama", {"rope_theta": 50000.0, "num_attention_heads": 8, "head_dim": 16}),
    "qwen3": ("Qwen3", {"head_dim": 32}),
    "tied": ("Qwen2", {"tie_word_embeddings": True}),
}


def join_world(folder: Path) -> None:
    """Start torch.distributed (gloo) over the ranks that mpirun started."""
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=world.rank, world_size=world.size
    )


def reference_model(family: str, seed: int = 0):
    """A tiny Hugging Face model in float32 whose norms and biases are not trivial."""
    import transformers

    name, more = FAMILIES[family]
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": 128,
        "intermediate_size": 192,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
    }
    config = getattr(transformers, f"{name}Config")(**{**sizes, **more})
    torch.manual_seed(seed)
    model = getattr(transformers, f"{name}ForCausalLM")(config).float().eval()
    with torch.no_grad():
        for label, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm" in label else 0.0, 0.08)
    model.config.architectures = [f"{name}ForCausalLM"]
    return model


def model_spec(reference) -> ModelSpec:
    return from_config(json.loads(reference.config.to_json_string()), "tiny")


def weights_of(reference) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in reference.state_dict().items()}


def sequences(count: int, seed: int = 5) -> Sequences:
    """Random sequences with prompts and responses of different lengths."""
    generator = torch.Generator().manual_seed(seed)
    prompts = torch.randint(3, 9, (count,), generator=generator)
    lengths = prompts + torch.randint(4, LENGTH - 8, (count,), generator=generator)
    tokens = torch.randint(0, VOCABULARY, (count, LENGTH), generator=generator)
    padding = torch.arange(LENGTH)[None] >= lengths[:, None]
    return Sequences(tokens=tokens.masked_fill(padding, 0), prompt_lengths=prompts, lengths=lengths)


def shard_of(batch: Sequences, layout: ParallelLayout, rank: int) -> tuple[Sequences, slice]:
    """The rows of a data-parallel rank, as a shard and as a slice of the batch."""
    rows = len(batch) // layout.dp
    start = rows * layout.coordinates(rank)["dp"]
    return batch.rows(start, start + rows), slice(start, start + rows)


def engine(reference, groups, *, scorer: bool = False, **changes):
    """An engine with the weights of the reference model."""
    settings = {
        "model": model_spec(reference),
        "groups": groups,
        "settings": TrainSettings(micro_batch=3),
        "precision": "fp32",
        "weights": weights_of(reference),
    }
    if scorer:
        return MegatronScorer(**{**settings, **changes})
    optimizer = OptimizerSpec(lr=1e-3, eps=1e-5, weight_decay=0.01, betas=(0.9, 0.95))
    return MegatronEngine(**{**settings, "optimizer": optimizer, **changes})
