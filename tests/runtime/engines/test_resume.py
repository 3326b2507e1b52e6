"""A checkpoint saved in one layout and world goes on in another as if nothing had happened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from plans.platform import CPU
from runtime.environment import without_manager

ROOT = Path(__file__).parents[3]
WORKER = Path(__file__).with_name("resume_worker.py")
MPIRUN = Path(sys.executable).with_name("mpirun")
WORLDS = {1: ("tp1",), 2: ("tp2", "pp2", "dp2", "pp2,vpp2"), 4: ("tp2,pp2", "tp2,dp2")}
FEW = {1: ("tp1",), 2: ("tp2", "pp2", "dp2")}

pytestmark = pytest.mark.engines


def start(folder, what, size, layouts):
    """The worker in a world of `size` ranks, which must end well."""
    user = without_manager(os.environ)
    environment = user | CPU.environment(user)
    environment |= {"PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo"}
    worker = [sys.executable, "-m", "mpi4py", WORKER, folder, what, *layouts]
    done = subprocess.run(
        [MPIRUN, "-n", str(size), *worker],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    (folder / "store").unlink(missing_ok=True)
    assert done.returncode == 0, done.stdout + done.stderr


def drift_of_all(folder, worlds):
    """The largest relative difference of losses and gradient norms, by (from, to) layout."""
    for what in ("save", "resume"):
        for size, layouts in worlds.items():
            start(folder, what, size, layouts)
    names = [name for layouts in worlds.values() for name in layouts]
    (first, *_), found = names, {}
    unbroken = json.loads((folder / f"unbroken-{first}.json").read_text())[2:]
    for name in names:
        resumed = json.loads((folder / f"resumed-{name}.json").read_text())
        for origin, steps in resumed.items():
            found[origin, name] = max(
                abs(step[key] / wanted[key] - 1)
                for step, wanted in zip(steps, unbroken, strict=True)
                for key in ("loss", "grad_norm")
            )
    return names, found


def table(names, found):
    lines = ["from \\ to  " + " ".join(f"{name:>9}" for name in names)]
    lines += [
        f"{one:<11}" + " ".join(f"{found[one, other]:9.1e}" for other in names) for one in names
    ]
    return "\n".join(lines)


@pytest.mark.slow
def test_losses_and_norms_go_on_alike_from_one_rank_to_two_and_back(tmp_path):
    names, found = drift_of_all(tmp_path, FEW)
    assert len(found) == len(names) ** 2
    assert max(found.values()) < 1e-5, table(names, found)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_losses_and_norms_go_on_alike_from_every_layout_to_every_other(tmp_path):
    names, found = drift_of_all(tmp_path, WORLDS)
    print(table(names, found))
    assert len(found) == len(names) ** 2
    assert max(found.values()) < 1e-5, table(names, found)
