"""A rank that joins torch.distributed and tells what it finds there; run as a program."""

import json
import os
import signal
import subprocess
import sys

import torch
import torch.distributed as dist

from runtime.groups import join
from runtime.rank import main


def work(context):
    groups = join(context)
    context.recorder.enter("gen", 1, 60.0)
    total = torch.tensor([float(groups.rank + 1)])
    dist.all_reduce(total)
    if os.environ.get("FAULT") == "kill" and groups.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    dist.all_reduce(total)
    child = subprocess.run(["env"], capture_output=True, text=True, check=True).stdout
    told = {
        "total": total.item(),
        "backend": dist.get_backend(),
        "world": [os.environ[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")],
        "meets": [os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]],
        "port": groups.port,
        "manager": [line for line in child.splitlines() if line.startswith(("PMI", "MPI_LOCAL"))],
    }
    everyone = context.control.gather(told)
    if context.rank == 0:
        (context.run_folder / "told.json").write_text(json.dumps(everyone))
    groups.close()
    return True


if __name__ == "__main__":
    sys.exit(main(task=work))
