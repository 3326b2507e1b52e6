"""Run under mpirun: measures Megatron's adapters on one world size, case after case.

lora_worker.py FOLDER CASE... ; a case is 'name family tp,dp,pp'. Rank 0 writes
FOLDER/results.json: what every rank measured, by case and in rank order.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import megatron_world as world
import torch
import torch.distributed as dist

from plans.layout import ParallelLayout
from plans.lora import LoraSpec
from plans.placement import TrainSettings
from runtime.engines.megatron import megatron_groups
from runtime.engines.megatron_lora import AdapterEngine, StartPolicy

ALL = LoraSpec.model_validate({"rank": 4, "alpha": 8})
SOME = LoraSpec.model_validate(
    {"rank": 2, "alpha": 6, "target_modules": ["q_proj", "v_proj", "down_proj"]}
)
WAYS = {
    "plain": TrainSettings(micro_batch=3),
    "sequence": TrainSettings(micro_batch=3, sequence_parallel=True),
    "recomputed": TrainSettings(micro_batch=3, recompute="full"),
}


def adapted(family: str, spec: LoraSpec, seed: int = 7) -> Any:
    """A reference model with PEFT's adapters, neither matrix of which is zero."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        target_modules=list(spec.target_modules),
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(world.reference_model(family), config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, one in model.named_parameters():
            if "lora_" in name:
                one.copy_(torch.randn(one.shape, generator=generator) * 0.05)
    return model


def adapters_of(model: Any) -> dict[str, torch.Tensor]:
    """PEFT's adapters under the names that the engines use."""
    return {
        name.removeprefix("base_model.model.").replace(".default", ""): one.detach().clone()
        for name, one in model.named_parameters()
        if "lora_" in name
    }


def engine(family: str, groups: Any, spec: LoraSpec, **changes: Any) -> AdapterEngine:
    """An engine with the reference model's weights and the adapters of `adapted`."""
    return AdapterEngine(
        lora=spec,
        adapter=adapters_of(adapted(family, spec)),
        **{
            **world.settings_of(world.reference_model(family), groups),
            "optimizer": world.ADAMW,
            **changes,
        },
    )


def distance(pairs: Any, expected: dict[str, torch.Tensor]) -> float:
    """The largest difference of whole tensors (on rank 0) from those of the same name."""
    found = [world.largest(one.float() - expected[name]) for name, one in pairs if one is not None]
    return max(found, default=0.0)


def truth(family: str, layout: ParallelLayout, _: Path) -> dict[str, Any]:
    """Log-probs, gradients and merged weights against PEFT, for each way to train."""
    groups, batch = megatron_groups(layout), world.sequences()
    shard = world.shard_of(batch, layout)
    results = {}
    for spec, name in ((ALL, "all"), (SOME, "some")):
        for way, settings in WAYS.items():
            theirs = adapted(family, spec)
            ours = engine(family, groups, spec, optimizer=world.GRADIENT_STEP, settings=settings)
            scores, error = ours.score(shard), 0.0
            if scores is not None:
                with torch.no_grad():
                    difference = world.log_probs(theirs, shard) - scores
                error = world.largest(difference * shard.response_mask)
            norm = ours.update(shard, world.likelihood(shard))["grad_norm"]
            expected = world.learn(theirs, batch, world.GRADIENT_STEP, 1)[0]
            learned = adapters_of(theirs)
            merged = theirs.merge_and_unload().state_dict()
            results[f"{name} {way}"] = {
                "log_probs": error,
                "gradients": distance(ours.adapter_tensors(), learned),
                "merged": distance(ours.full_tensors(), merged),
                "norm": norm / expected,
            }
    return results


def checkpoint(family: str, layout: ParallelLayout, folder: Path) -> dict[str, Any]:
    """Save under one layout, load under another of this world, and learn on in both."""
    groups, batch = megatron_groups(layout), world.sequences()
    shard = world.shard_of(batch, layout)
    saved = engine(family, groups, ALL)
    start = StartPolicy(saved)
    first = saved.score(shard)
    saved.update(shard, world.likelihood(shard))
    learned, again = saved.score(shard), start.score(shard)
    if dist.get_rank() == 0:
        folder.mkdir(exist_ok=True)
    dist.barrier()
    saving = saved.begin_save(folder, copies=False)
    saving.write()
    saving.finish()
    metrics = saved.update(shard, world.likelihood(shard))
    other = ParallelLayout(tp=layout.dp, dp=layout.tp, pp=layout.pp)
    moved = engine(family, megatron_groups(other), ALL)
    moved.fill(
        {name: torch.zeros_like(one) for name, one in adapters_of(adapted(family, ALL)).items()}
    )
    moved.load(folder)
    rows = world.shard_of(batch, other)
    there = moved.update(rows, world.likelihood(rows))
    whole = {name: one for name, one in saved.adapter_tensors() if one is not None}
    files = sum(path.stat().st_size for path in folder.glob("*.distcp"))
    return {
        "start_again": again is None or bool(torch.equal(first, again)),
        "learned": learned is None or not torch.equal(first, learned),
        "loss": there["loss"] - metrics["loss"],
        "norm": there["grad_norm"] / metrics["grad_norm"],
        "drift": distance(moved.adapter_tensors(), whole),
        "file_bytes": files,
        "adapter_bytes": 4 * sum(one.numel() for one in adapters_of(adapted(family, ALL)).values()),
        "trained": sum(one.requires_grad for one in saved.parameters().values()),
        "adapters": len({box.parameter for box in saved.adapter_boxes}),
    }


def main() -> None:
    folder = Path(sys.argv[1])
    world.join_world(folder)
    results: dict[str, Any] = {}
    for number, case in enumerate(sys.argv[2:]):
        name, family, axes = case.split()
        tp, dp, pp = map(int, axes.split(","))
        layout = ParallelLayout(tp=tp, dp=dp, pp=pp)
        mine = globals()[name](family, layout, folder / str(number))
        everyones: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(everyones, mine)
        results[case] = everyones
    if dist.get_rank() == 0:
        (folder / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main()
