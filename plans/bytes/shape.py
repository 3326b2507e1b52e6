"""From a model's specification to the shape that the memory tree and the time model read."""

from __future__ import annotations

from dataclasses import asdict

from plans.model import ModelSpec
from plans.times.shape import Latent, Shape


def shape_of(model: ModelSpec) -> Shape:
    """The shape of a model; shared experts are counted in widths of a routed one."""
    experts, latent = model.experts, model.latent
    return Shape(
        layers=model.layer_count,
        hidden=model.hidden_size,
        heads=model.head_count,
        kv_heads=model.kv_head_count,
        head_size=model.head_size,
        inner=model.intermediate_size,
        vocab=model.padded_vocab_size,
        tied=model.tied_embeddings,
        experts=experts.count if experts else 0,
        experts_per_token=experts.per_token if experts else 0,
        expert_inner=experts.inner if experts else 0,
        shared_experts=-(-experts.shared_inner // experts.inner) if experts else 0,
        dense_layers=model.dense_layer_count if experts else 0,
        latent=Latent(**asdict(latent)) if latent else None,
    )
