"""Rows in one spelling: columns, kinds, units and devices as other tables write them."""

from __future__ import annotations

import re
from dataclasses import replace

from benchmarks.rows import Row
from plans.source import PlanError

# unit of the model -> (pattern of a spelling, how many of the model's units one of it is)
UNITS: tuple[tuple[str, str, float], ...] = (
    ("step_s", r"step_?s|s|sec|secs|seconds?|s/(step|it|iter)|step_?time(_s)?|latency_s", 1.0),
    ("step_s", r"ms|milliseconds?|step_?ms|latency_ms|ttft_ms", 1e-3),
    ("tokens_per_s_per_gpu", r"(tokens?|tok)(_per_|/)s(ec|econd)?(_per_|/)(gpu|device|chip)", 1.0),
    ("tokens_per_s_per_gpu", r"tps(_per_|/)(gpu|device)|tgs", 1.0),
    ("tokens_per_s_total", r"(tokens?|tok)(_per_|/)s(ec|econd)?(_total|\(total\))?|tps", 1.0),
    ("TFLOPs_per_gpu", r"(model_?)?tflops?(_|/)?s?((_per_|/)(gpu|device|s/gpu))?", 1.0),
    ("TFLOPs_per_gpu", r"(model_?)?pflops?(_|/)?s?((_per_|/)(gpu|device|s/gpu))?", 1e3),
    ("MFU", r"mfu|mfu_?(percent|%)|%|percent", 1.0),
)
KINDS: tuple[tuple[str, str], ...] = (
    ("train", r"train(ing)?|pretrain(ing)?|sft|finetun(e|ing)"),
    ("prefill", r"prefill|ttft|first_?token|prompt"),
    ("decode", r"decod(e|ing)|inference|serv(e|ing)|generat(e|ion)|offline"),
    ("rlhf_step", r"rlhf(_step)?|rl(_step)?|ppo|grpo|post_?training"),
    ("memory", r"mem(ory)?(_peak)?|peak_memory"),
)
# counts that are at least one where they are printed, and those where nothing means none
POSITIVE = (
    *("layers", "hidden", "heads", "kv_heads", "vocab", "seq_in", "seq", "gpus", "gpus_per_node"),
    *("tp", "pp", "dp", "cp", "micro_batch", "global_batch"),
)
OPTIONAL = ("ffn", "n_experts", "moe_topk", "moe_ffn", "moe_shared", "seq_out", "ep", "vpp")


def canonical(row: Row) -> tuple[Row, float]:
    """The row with its counts, kind and unit as the model writes them.

    Also how many of the model's units one of the row's is. PlanError for a value, a count or a
    unit that cannot be read.
    """
    counted = with_counts(row)
    unit, factor = _unit(counted)
    named = replace(counted, cells={**counted.cells, "unit": unit})
    return replace(named, cells={**named.cells, "kind": kind_of(named)}), factor


def with_counts(row: Row) -> Row:
    """The row with plain numbers in its counts; PlanError for one that cannot be."""
    if row.measured <= 0:
        raise PlanError(f"value {row['value']!r} is not a positive number")
    cells = dict(row.cells)
    for column in (*POSITIVE, *OPTIONAL):
        found = row.number(column)
        least = 1 if column in POSITIVE and row.published(column) else 0
        if found < least:
            raise PlanError(f"{column} {row[column]!r} is less than {least}")
        if 0 < found < 1:
            raise PlanError(f"{column} {row[column]!r} is less than 1")
        cells[column] = f"{found:.15g}" if found or column == "moe_shared" else ""
    return replace(row, cells=cells)


def kind_of(row: Row) -> str:
    """train, prefill, decode, rlhf_step or memory; what is not known as it stands.

    Where there is no column: a rate of FLOPs or a row without responses is training, one token is
    a prefill, more are decoded.
    """
    word = row["kind"].lower().replace("-", "_").replace(" ", "_")
    if not word:
        if row["unit"] in ("MFU", "TFLOPs_per_gpu") or not row["seq_out"]:
            return "train"
        return "prefill" if row["seq_out"] in ("1", "1.0") else "decode"
    return next((kind for kind, pattern in KINDS if re.fullmatch(pattern, word)), row["kind"])


def _unit(row: Row) -> tuple[str, float]:
    word = re.sub(r"\s+", "", row["unit"].lower().replace(" per ", "/"))
    for unit, pattern, factor in UNITS:
        if re.fullmatch(pattern, word):
            return unit, factor
    if not word:
        raise PlanError("no unit")
    known = ", ".join(dict.fromkeys(unit for unit, _, _ in UNITS))
    raise PlanError(f"unit {row['unit']!r} is not known; known: {known}")
