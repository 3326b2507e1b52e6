"""How each engine lays the Hugging Face tensors out in its own parameters, on each rank."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A slice of one Hugging Face tensor inside one parameter of an engine on one rank.

    Along `dim`, the parameter's [offset, offset + length) holds the tensor's
    [start, start + length); every other dim is whole.
    """

    parameter: str
    tensor: str
    dim: int
    offset: int
    start: int
    length: int
