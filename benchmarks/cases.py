"""A row as the case its anchors are compared by: what stands in its columns, never its value."""

from __future__ import annotations

import re

from benchmarks.rows import Row
from benchmarks.train_rows import precision_of
from plans.times.anchors import Case, case

# words in the notes or the model's name that name another way to run the same thing
MODES = ("lora", "1-step off", "async", "tokendrop", "dropless", "sft", "rl full", "dapo", "phase")
COLUMNS = {
    "layers": "layers",
    "hidden": "hidden",
    "sequence": "seq_in",
    "response": "seq_out",
    "devices": "gpus",
    "tp": "tp",
    "pp": "pp",
    "cp": "cp",
    "ep": "ep",
    "virtual": "vpp",
}


def case_of(row: Row) -> Case:
    """Numbers and words of the columns; the release of a container named in the source."""
    numbers = {name: row.number(column) for name, column in COLUMNS.items()}
    numbers["parameters"] = _parameters(row)
    numbers["batch"] = row.number("micro_batch") or row.number("global_batch")
    words = {
        "kind": row["kind"],
        "device": row["hardware"],
        "precision": precision_of(row["precision"]),
        "mode": _mode(row),
    }
    return case(numbers, words, _release(row))


def _parameters(row: Row) -> float:
    """A rough size: what stands in the columns, enough to tell models apart."""
    inner = row.number("ffn") + row.number("n_experts") * row.number("moe_ffn")
    return row.number("layers") * row.number("hidden") * (row.number("hidden") + inner)


def _mode(row: Row) -> str:
    """Recomputation, the ways of `MODES`, a phase's name, and a schedule's."""
    text = f"{row['notes']} {row['model']}".lower()
    found = [word for word in MODES if word in text]
    named = re.findall(r"phase only: (\w+)|schedule=([\w-]+)|section .*(fp8)", text)
    return " ".join([row["recompute"], *found, *("".join(each) for each in named)])


def _release(row: Row) -> float:
    """Months since 2000 of a container such as [25.11 NeMo Container], 0 when not named."""
    found = re.search(r"\[(\d\d)\.(\d\d)", row["source"])
    return 12 * int(found.group(1)) + int(found.group(2)) if found else 0.0


def is_time(row: Row) -> bool:
    """Whether more is slower: seconds; every other unit is a rate."""
    return row["unit"] == "step_s"
