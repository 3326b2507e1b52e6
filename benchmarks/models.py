"""Shapes of published models from the columns of a row, completed by family.

The columns have no head size, no MLP kind and no latent attention; those are facts of public
config files, kept here by the family's name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from benchmarks.rows import Row
from plans.source import PlanError
from plans.times.shape import Latent, Shape

DEEPSEEK = Latent(query_rank=1536, kv_rank=512, plain_head=128, rope_head=64, value_head=128)
# two-matrix MLPs; every other known family is gated
PLAIN = re.compile(
    r"gpt-?\d|gpt-j|^gpt$|^gpt-|gpt3|mpt|falcon|nemotron-(8|15|22|340)|megatron|turing|mt-nlg|opt-"
)
NEEDED = ("layers", "hidden", "heads")


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What a name fixes beyond the columns."""

    pattern: str
    head_size: int = 0
    latent: Latent | None = None
    dense_layers: int = 0
    window: int = 0
    vocab: int = 51200


FAMILIES = (
    Family(pattern=r"deepseek.?(v3|r1)", latent=DEEPSEEK, dense_layers=3),
    Family(pattern=r"kimi", latent=DEEPSEEK, dense_layers=1),
    Family(pattern=r"qwen.?3", head_size=128),
    Family(pattern=r"gpt.?oss", head_size=64, window=128),
    Family(pattern=r"falcon", head_size=64),
    Family(pattern=r"nemotron", vocab=256000),
)


def shape_of(row: Row) -> Shape:
    """The model of a row; PlanError when the row does not say its sizes."""
    missing = [name for name in NEEDED if not row[name]]
    if missing:
        raise PlanError(f"model sizes not published: {', '.join(missing)}")
    name = row["model"].lower()
    family = next((each for each in FAMILIES if re.search(each.pattern, name)), Family(pattern=""))
    heads, hidden = row.count("heads"), row.count("hidden")
    experts = row.count("n_experts")
    gated = not PLAIN.search(name) or "oss" in name
    inner = row.count("ffn") or (0 if experts else 4 * hidden)
    return Shape(
        layers=row.count("layers"),
        hidden=hidden,
        heads=heads,
        kv_heads=row.count("kv_heads", heads),
        head_size=family.head_size or hidden // heads,
        inner=inner,
        vocab=row.count("vocab", family.vocab),
        gated=gated,
        tied=not gated,
        experts=experts,
        experts_per_token=row.count("moe_topk"),
        expert_inner=row.count("moe_ffn"),
        shared_experts=row.count("moe_shared"),
        dense_layers=family.dense_layers if experts else 0,
        latent=family.latent,
        window=family.window,
    )
