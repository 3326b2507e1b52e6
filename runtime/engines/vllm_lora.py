"""Adapters inside vLLM's linear layers: parameters like any other, which the switch writes.

vLLM's own LoRA serves many adapters at once, chosen by request. Here every token has the one
that is being trained, so two plain products will do, on every platform and in its graphs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from plans.adapters import adapter_tensors, rank_boxes
from plans.layout import ParallelLayout
from plans.lora import LoraSpec
from plans.model import ModelSpec
from plans.shards import VLLM, parameter_shapes
from runtime.engines.low_rank import Adapter, Piece, by_home

MODULES = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "o_proj": ("o_proj",),
    "gate_up_proj": ("gate_proj", "up_proj"),
    "down_proj": ("down_proj",),
}
Homes = dict[str, dict[str, tuple[int, ...]]]


def homes(model: ModelSpec, lora: LoraSpec, layout: ParallelLayout, rank: int) -> Homes:
    """The shapes of the adapters on a rank, by vLLM's name of the layer they stand beside."""
    tensors = {one.name: one.shape for one in adapter_tensors(model, lora)}
    boxes = rank_boxes(VLLM, model, lora, layout, rank)
    return by_home(parameter_shapes(tensors, boxes))


def attach(network: torch.nn.Module, lora: LoraSpec, shapes: Homes) -> None:
    """Put adapters, zero for now, beside the targeted layers of a network."""
    from vllm.model_executor.layers.linear import LinearMethodBase

    class AdaptedMethod(LinearMethodBase):  # type: ignore[misc]
        """A linear method whose product has the adapter's added.

        Where ranks sum their products, each adds its part: B of the sum is the sum of the B's.
        """

        def __init__(self, plain: Any) -> None:
            self.plain = plain

        def create_weights(self, *given: Any, **named: Any) -> None:
            self.plain.create_weights(*given, **named)

        def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
            self.plain.process_weights_after_loading(layer)

        def apply(self, layer: torch.nn.Module, x: Tensor, bias: Tensor | None = None) -> Tensor:
            product: Tensor = self.plain.apply(layer, x, bias)
            adapter: Any = layer.adapter
            total: Tensor = product + adapter(x)
            return total

    for home, held in shapes.items():
        layer: Any = network.get_submodule(home)
        sizes = getattr(layer, "output_partition_sizes", [layer.output_size])
        pieces = tuple(
            Piece(module=module, rows=rows)
            for module, rows in zip(MODULES[home.rpartition(".")[2]], sizes, strict=True)
        )
        layer.adapter = Adapter(
            held, pieces, rank=lora.rank, scale=lora.scale, like=layer.weight
        ).requires_grad_(False)
        layer.quant_method = AdaptedMethod(layer.quant_method)
