"""Clusters that tests share: each is started once, by the first test that asks for it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster.lab import Cluster, missing_programs

# Set by .ci/run: there a missing program is a failure and not a reason to skip.
REQUIRED = "RLPLAN_TESTS_NEED_SLURM"
MEMORY = Path("/dev/shm")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A Slurm cluster of four nodes with accounting."""
    with _running(nodes=4, accounting=True) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def bare_cluster() -> Iterator[Cluster]:
    """A Slurm cluster of two nodes without accounting: sacct knows nothing."""
    with _running(nodes=2, accounting=False) as cluster:
        yield cluster


@contextmanager
def _running(*, nodes: int, accounting: bool) -> Iterator[Cluster]:
    missing = missing_programs(accounting)
    if missing and REQUIRED in os.environ:
        pytest.fail(f"no {', '.join(missing)}; bash .ci/install brings them")
    if missing:
        pytest.skip(f"no {', '.join(missing)}; bash .ci/install brings them")
    # Sockets have short names, and a database in memory starts four times faster.
    parent = MEMORY if MEMORY.is_dir() else None
    folder = Path(tempfile.mkdtemp(prefix="rlplan-slurm-", dir=parent))
    folder.chmod(0o755)
    cluster = Cluster(folder, nodes=nodes, accounting=accounting)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)
