"""A rank that saves and loads over MPI, as a program: `saving_rank.py FOLDER`."""

import json
import sys
from pathlib import Path

import torch

from plans.dataflow import Role
from runtime.checkpoint import load_latest
from runtime.control_mpi import MPIControl
from runtime.events import EventLog
from tests.runtime.participants import TensorEngine, save, tiny_plan


def main(folder):
    control = MPIControl(20.0)
    own = folder / f"rank-{control.rank}"
    own.mkdir()
    plan = tiny_plan(own, ranks=control.size)
    for step in (1, 2):
        engines = {Role.ACTOR_TRAIN: TensorEngine(control.rank, seed=step)}
        save(step, engines, {"seed": step}, control, folder, plan)
    if control.rank == 0:
        (folder / "checkpoints" / "step-000002" / "actor_train" / "rank-1.safetensors").unlink()
    control.barrier("damage")
    engine = TensorEngine(control.rank, seed=99)
    found = load_latest({Role.ACTOR_TRAIN: engine}, control, folder, plan, EventLog(None))
    wanted = TensorEngine(control.rank, seed=1).tensors["weight"]
    same = torch.equal(engine.tensors["weight"], wanted)
    (own / "found.json").write_text(json.dumps([found.step, found.state, same]))
    control.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
