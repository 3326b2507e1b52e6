"""Processes below one, their arguments and their sockets, as /proc tells them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

SAMPLE_SECONDS = 0.1


def samples(process: subprocess.Popen[str]) -> Iterator[dict[int, list[str]]]:
    """What `family_of` says of a process, ten times a second until it has ended."""
    while True:
        yield family_of(process.pid)
        with suppress(subprocess.TimeoutExpired):
            process.wait(SAMPLE_SECONDS)
            return


def family_of(pid: int) -> dict[int, list[str]]:
    """The arguments of a process and of all below it that live right now, by process id."""
    parents, commands = {}, {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            one = int(path.name)
            stat = (path / "stat").read_text().rpartition(")")[2]
            words = (path / "cmdline").read_bytes().decode(errors="replace").split("\0")
            parents[one], commands[one] = int(stat.split()[1]), words
    family, grown = {pid}, True
    while grown:
        more = {child for child, parent in parents.items() if parent in family} - family
        family, grown = family | more, bool(more)
    return {one: commands[one] for one in family if one in commands}


def sockets_of(pid: int) -> set[str]:
    """The inodes of the sockets that a process holds."""
    found = set()
    with suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                target = os.readlink(f"/proc/{pid}/fd/{name}")
                if target.startswith("socket:["):
                    found.add(target.removeprefix("socket:[").removesuffix("]"))
    return found
