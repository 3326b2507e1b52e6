"""Slurm's programs, called: what they refuse, when they are asked again, and how often."""

import pytest

from slurm.commands import Absent, Refused, Unreachable, call, patiently, without_inherited


def program(folder, name, text):
    path = folder / name
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def programs(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return tmp_path


def test_a_refusal_is_told_in_slurms_words(programs):
    program(programs, "sbatch", "echo 'sbatch: error: Invalid account' >&2; exit 1")
    with pytest.raises(Refused, match="Invalid account"):
        call("sbatch")


def test_silence_of_the_controller_is_no_refusal(programs):
    program(programs, "squeue", "echo 'slurm_load_jobs error: Socket timed out' >&2; exit 1")
    with pytest.raises(Unreachable, match="Socket timed out"):
        call("squeue")


@pytest.mark.usefixtures("programs")
def test_a_machine_without_slurm_is_told_so_at_once():
    with pytest.raises(Absent, match="snooze is not here"):
        patiently(lambda: call("snooze"), sleep=lambda _seconds: pytest.fail("waited"))


def test_patience_ends(programs):
    slept = []
    program(programs, "squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(Unreachable):
        patiently(lambda: call("squeue"), pauses=(1, 2), sleep=slept.append)
    assert slept == [1, 2]


def test_before_another_try_one_looks_whether_the_last_arrived():
    tries = []

    def act():
        tries.append("try")
        raise Unreachable("Socket timed out")

    found = patiently(act, found=lambda: "17", pauses=(1, 2), sleep=lambda _seconds: None)
    assert (found, tries) == ("17", ["try"])


def test_a_new_job_sees_nothing_of_the_one_it_is_submitted_from():
    environment = {"SLURM_JOB_ID": "1", "PMI_RANK": "0", "SLURM_CONF": "/etc/x", "PATH": "/bin"}
    assert without_inherited(environment) == ["env", "-u", "PMI_RANK", "-u", "SLURM_JOB_ID"]
