"""Which ports a run listens on: loopback alone, but for the one of MPICH's own mpirun."""

import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.runs import ROOT, write_job
from tests.security.processes import samples, sockets_of

LISTENING = "0A"


def listeners():
    """Address by inode of every listening TCP socket of this machine."""
    found = {}
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == LISTENING:
                found[words[9]] = address_of(words[1].partition(":")[0])
    return found


def address_of(text):
    """The address in /proc/net: words of four bytes, each in the order of this machine."""
    raw = bytes.fromhex(text)
    words = [raw[start : start + 4][::-1] for start in range(0, len(raw), 4)]
    return ip_address(b"".join(words))


def test_the_kernels_way_of_writing_addresses_is_read():
    assert str(address_of("0100007F")) == "127.0.0.1"
    assert str(address_of("00000000000000000000000001000000")) == "::1"


@pytest.mark.slow
@pytest.mark.engines
def test_the_ranks_of_a_run_listen_on_loopback_alone(tmp_path):
    write_job(tmp_path, steps=2, cluster={"hardware": "cpu", "ranks": 2})
    process = subprocess.Popen(
        [sys.executable, "-m", "launcher.cli", "run", "job.yaml"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
    )
    seen, of_mpirun = set(), set()
    for family in samples(process):
        open_ports = listeners()
        for pid, command in family.items():
            inodes = sockets_of(pid) & set(open_ports)
            if Path(command[0]).name in ("mpirun", "hydra_pmi_proxy"):
                of_mpirun |= inodes
            seen |= {(inode, open_ports[inode]) for inode in inodes}
    output = process.stdout.read()
    assert process.returncode == 0, output
    assert seen, "torch.distributed meets on a port of the loopback"
    # Ranks inherit the port of mpirun and never accept on it.
    outside = {inode for inode, address in seen if not address.is_loopback} - of_mpirun
    assert outside == set()
    assert len({inode for inode, address in seen if not address.is_loopback}) <= 1
