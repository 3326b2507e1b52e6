"""The mpirun of this machine: which one, of which family, and the command line it wants."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from plans.source import UserError
from plans.values import frozen
from runtime.environment import executable, without_launchers
from slurm.program import answer_of, last_line

Family = Literal["MPICH", "Open MPI", "Intel MPI"]
REMEDY = "install one beside this Python: pip install mpich"
PROBE_SECONDS = 60.0
# Asks mpi4py which MPI it loads, without starting it.
PROBE = """
import mpi4py
mpi4py.rc.initialize = False
from mpi4py import MPI
print(MPI.Get_library_version())
"""
BANNERS: tuple[tuple[str, Family], ...] = (
    (r"Intel\(R\) MPI", "Intel MPI"),
    (r"Open MPI|OpenRTE|open-mpi|prte", "Open MPI"),
    (r"HYDRA|MPICH|mpiexec", "MPICH"),
)


@frozen
class Mpirun:
    """An mpirun that was found: its path, its family, and its version where it tells."""

    path: Path
    family: Family
    version: str

    def __str__(self) -> str:
        return f"{self.family} {self.version} ({self.path})"

    @property
    def _no_remote_shell(self) -> list[str]:
        """Open MPI looks for ssh even to start on this host, and gives up without one."""
        if self.version.startswith(("1.", "2.", "3.", "4.")):
            return ["--mca", "plm_rsh_agent", "false"]
        return ["--prtemca", "plm_ssh_agent", "false"]

    def command(self, ranks: int, program: Sequence[str]) -> list[str]:
        """The command that starts `program` on this many ranks of this host, bound to no core."""
        start = [str(self.path), "-n", str(ranks)]
        if self.family == "Open MPI":
            start += ["--oversubscribe", "--bind-to", "none", *self._no_remote_shell]
            start += ["--allow-run-as-root"] if os.geteuid() == 0 else []
        elif self.family == "MPICH":
            start += ["-launcher", "fork", "-bind-to", "none"]
        else:
            start += ["-launcher", "fork", "-genv", "I_MPI_PIN", "0"]
        return [*start, *program]


def find_mpirun(environment: Mapping[str, str], beside: Path | None = None) -> Mpirun:
    """The mpirun beside this Python, else on PATH, and proof that mpi4py loads the same MPI.

    UserError with the remedy when there is none, or when the two belong to different families.
    """
    beside = beside or Path(sys.executable).parent
    path = executable("mpirun", environment, first=beside)
    if path is None:
        raise UserError(f"no mpirun in {beside} or on PATH; {REMEDY}")
    clean = without_launchers(environment)
    mpirun = identify(path, _said([str(path), "--version"], clean))
    loaded = _said([sys.executable, "-c", PROBE], clean)
    check_library(mpirun, loaded)
    return mpirun


def identify(path: Path, banner: str) -> Mpirun:
    """The family and version that `mpirun --version` tells; UserError when it is none we know."""
    family = family_of(banner)
    if family is None:
        first = banner.strip().splitlines()[:1]
        raise UserError(f"{path}: neither MPICH, Open MPI nor Intel MPI: {first}; {REMEDY}")
    version = re.search(r"\d+\.\d+(\.\d+)?", banner)
    return Mpirun(path=path, family=family, version=version[0] if version else "")


def family_of(banner: str) -> Family | None:
    for pattern, family in BANNERS:
        if re.search(pattern, banner):
            return family
    return None


def check_library(mpirun: Mpirun, loaded: str) -> None:
    """UserError when mpi4py loads an MPI that this mpirun cannot start.

    Processes started so would each be a world of one. MPICH and Intel MPI share an ABI and a
    process manager (Hydra); Open MPI has its own.
    """
    family = family_of(loaded)
    if family is None:
        raise UserError(f"mpi4py cannot load an MPI library: {last_line(loaded)}; {REMEDY}")
    if (family == "Open MPI") != (mpirun.family == "Open MPI"):
        raise UserError(
            f"{mpirun.path} is {mpirun.family}, but mpi4py loads {family}; put the mpirun of "
            f"{family} first on PATH, or set MPI4PY_LIBMPI to the library of {mpirun.family}"
        )


def _said(command: Sequence[str], environment: Mapping[str, str]) -> str:
    try:
        return answer_of(command, environment, seconds=PROBE_SECONDS).text
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"{command[0]} does not run: {error}; {REMEDY}") from error
