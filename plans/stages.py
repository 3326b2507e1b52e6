"""Which layers a pipeline stage holds: the one place that knows how they are dealt out."""

from __future__ import annotations

from plans.layout import ParallelLayout


def stage_layers(layers: int, layout: ParallelLayout, stage: int) -> tuple[int, ...]:
    """The layers that the ranks of a stage hold, in ascending order.

    With `vpp` virtual stages the model is walked that many times over all stages, an equal
    piece on each at every turn (Narayanan et al. 2021, 2.2); else a stage is one run of
    layers, and where these do not divide, the first and the last are shorter.
    """
    pp, vpp = layout.pp, layout.vpp
    if layers % (pp * vpp) == 0:
        length = layers // (pp * vpp)
        starts = [(turn * pp + stage) * length for turn in range(vpp)]
        return tuple(start + place for start in starts for place in range(length))
    ends = uneven_stages(layers, pp)
    assert ends, f"{layers} layers do not divide into {pp} stages"
    assert vpp == 1, f"{layers} layers do not divide into {pp} x {vpp} virtual stages"
    first, last = ends
    middle = (layers - first - last) // max(1, pp - 2)
    start = first + (stage - 1) * middle if stage else 0
    length = {0: first, pp - 1: last}.get(stage, middle)
    return tuple(range(start, start + length))


def uneven_stages(layers: int, pp: int) -> tuple[int, int] | None:
    """Layers of the first and last stage when the others hold ceil(layers / pp); None if none.

    The ends hold fewer: the embedding stands on the one, the head and the loss on the other
    (Megatron-core's num_layers_in_first_pipeline_stage and its twin).
    """
    middle = -(-layers // pp)
    rest = layers - middle * (pp - 2)
    if pp < 2 or layers % pp == 0 or rest < 2:
        return None
    return rest - rest // 2, rest // 2


def places_of(layers: tuple[int, ...]) -> dict[int, int]:
    """The place of each layer among those of its stage."""
    return {layer: place for place, layer in enumerate(layers)}
