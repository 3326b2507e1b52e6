"""The low-rank product beside a frozen matrix, as both engines compute it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import linear

from plans.adapters import A, B
from plans.values import frozen


@frozen
class Piece:
    """One matrix of a parameter that holds several: its name and its rows on this rank."""

    module: str
    rows: int


class Adapter(torch.nn.Module):
    """The adapters of one parameter's matrices, `pieces` one behind another.

    `shapes` of `lora_A` (the A's of all targeted pieces in one) and of a `lora_B_<module>` each.
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        pieces: tuple[Piece, ...],
        *,
        rank: int,
        scale: float,
        like: Tensor,
    ) -> None:
        super().__init__()
        self.pieces, self.rank, self.scale = pieces, rank, scale
        for name, shape in shapes.items():
            empty = torch.zeros(shape, dtype=like.dtype, device=like.device)
            self.register_parameter(name, torch.nn.Parameter(empty))

    def shrunk(self, inputs: Tensor) -> Tensor:
        """[..., targeted pieces x rank] of inputs [..., columns]."""
        return linear(inputs, getattr(self, A))

    def grown(self, hidden: Tensor) -> list[Tensor]:
        """[..., rows] of every piece, scaled; zeros of one that is not targeted."""
        parts = list(torch.split(hidden * self.scale, self.rank, -1))
        return [
            linear(parts.pop(0), getattr(self, name))
            if hasattr(self, name := f"{B}_{piece.module}")
            else hidden.new_zeros(*hidden.shape[:-1], piece.rows)
            for piece in self.pieces
        ]

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., rows of all pieces]: what is added to the frozen product."""
        parts = self.grown(self.shrunk(inputs))
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


def by_home(
    shapes: Mapping[str, tuple[int, ...]],
) -> dict[str, dict[str, tuple[int, ...]]]:
    """Shapes of adapters' parameters by the name of the layer they stand beside."""
    homes: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        home, _, own = name.rpartition(".adapter.")
        homes.setdefault(home, {})[own] = shape
    return homes
