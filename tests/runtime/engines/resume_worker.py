"""Run under mpirun: saves or resumes the Megatron engine in every layout of one world size.

resume_worker.py FOLDER save|resume LAYOUT... ; a layout is 'tp2,pp2'. `save` takes two steps
and leaves FOLDER/<layout>/; `resume` goes on for two steps from each folder there is, in each
of the layouts, and writes FOLDER/resumed-<layout>.json: by layout of the folder, the steps.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import megatron_world as world
import torch.distributed as dist

from plans.layout import ParallelLayout
from runtime.engines.megatron import megatron_groups

STEPS = 2


def layout_of(name: str) -> ParallelLayout:
    degrees = {part.rstrip("0123456789"): int(part[-1]) for part in name.split(",")}
    return ParallelLayout(**degrees)


def steps_of(engine, layout):
    shard = world.shard_of(world.sequences(), layout)
    return [engine.update(shard, world.likelihood(shard)) for _ in range(STEPS)]


def save(folder: Path, name: str) -> None:
    layout, place = layout_of(name), folder / name
    engine = world.engine(world.reference_model("qwen2"), megatron_groups(layout))
    steps = steps_of(engine, layout)
    place.mkdir(exist_ok=True)
    dist.barrier()
    world.save(engine, place)
    steps += steps_of(engine, layout)
    if dist.get_rank() == 0:
        (folder / f"unbroken-{name}.json").write_text(json.dumps(steps))


def resume(folder: Path, name: str) -> None:
    layout, groups, found = layout_of(name), megatron_groups(layout_of(name)), {}
    for place in sorted(one for one in folder.iterdir() if (one / ".metadata").is_file()):
        engine = world.engine(world.reference_model("qwen2", seed=9), groups)
        engine.load(place)
        found[place.name] = steps_of(engine, layout)
    if dist.get_rank() == 0:
        (folder / f"resumed-{name}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    target = Path(sys.argv[1])
    world.join_world(target)
    for each in sys.argv[3:]:
        {"save": save, "resume": resume}[sys.argv[2]](target, each)
    dist.barrier()
