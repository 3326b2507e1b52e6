"""Whether a file may be acted on: it is ours or root's, and nobody else can write to it.

A plan names files with reward functions, which are run: who can write a plan of mine runs
code as me.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from plans.plan import Plan, read_plan
from plans.source import UserError

OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


def read_own_plan(path: Path) -> Plan:
    """The plan in a file that is only ours to write; UserError as for `read_plan`, and if not."""
    if path.exists():
        require_own(path)
    return read_plan(path)


def require_own(path: Path) -> None:
    """UserError when a file or folder belongs to another user, or another may write to it."""
    facts = path.stat()
    if facts.st_uid not in (os.geteuid(), 0):
        raise UserError(f"{path}: belongs to user {facts.st_uid}; make a plan of your own")
    if facts.st_mode & OTHERS_MAY_WRITE:
        raise UserError(f"{path}: others may write to it; chmod go-w {path}")
