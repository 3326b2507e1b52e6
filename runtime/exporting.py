"""A checkpoint as a Hugging Face folder, by one process on the CPU.

    python -m runtime.exporting --plan PLAN --checkpoint FOLDER --model FOLDER --to FOLDER

Started by `rlplan export`, with no GPU in sight; it is no rank and needs no MPI. The model
alone is read, whatever layout saved it. The answer is a line of JSON: {"tensors": n}, or
{"mistake": text}.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist

from plans.layout import ParallelLayout
from plans.placement import TrainSettings
from plans.plan import Plan
from plans.source import UserError
from runtime.control import SingleControl
from runtime.engines.megatron import megatron_groups
from runtime.export import export
from runtime.policy import standing_policy
from runtime.trust import read_own_plan

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def main(arguments: Sequence[str] | None = None) -> int:
    """Export, and say how it went; 0 also when the user is told of a mistake."""
    given = _parser().parse_args(arguments)
    try:
        count = export_checkpoint(
            read_own_plan(given.plan),
            given.checkpoint,
            given.model,
            given.to,
            DTYPES[given.dtype] if given.dtype else None,
        )
        print(json.dumps({"tensors": count}))
    except UserError as error:
        print(json.dumps({"mistake": str(error)}))
    except OSError as error:
        print(json.dumps({"mistake": f"{error.filename}: {error.strerror}"}))
    return 0


def export_checkpoint(
    plan: Plan, checkpoint: Path, model_folder: Path, folder: Path, dtype: torch.dtype | None
) -> int:
    """Write the policy in a checkpoint to `folder`, whole or not at all; the number of tensors.

    Equal bit for bit to what the run would export at this step, unless `dtype` is another. The
    checkpoint has been checked: that it is whole, ours, and of the plan's model. UserError when
    it holds no such model; OSError when the folder cannot be written.
    """
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    try:
        groups, settings = megatron_groups(ParallelLayout()), TrainSettings(micro_batch=1)
        engine = standing_policy(plan, model_folder, groups, settings, checkpoint)
        export(engine, SingleControl(), folder, model_folder, dtype, writes=True)
    finally:
        dist.destroy_process_group()
    return len(plan.model.tensors)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m runtime.exporting")
    for name in ("plan", "checkpoint", "model", "to"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--dtype", choices=sorted(DTYPES))
    return parser


if __name__ == "__main__":
    sys.exit(main())
