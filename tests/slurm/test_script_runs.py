"""What a batch script does, run by bash with programs that stand for srun and scontrol."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from launcher.platforms import platform_of
from plans.hardware import read_hardware
from plans.plan import dumps
from plans.search import make_plan
from slurm.script import render
from tests.plans.samples import job, model

# Writes its arguments down and does what the test says; the last argument is the run's folder.
SRUN = """\
#!/bin/bash
printf '%s\\n' "$*" >>srun.log
run=${*: -1}
source ./ranks.sh
"""
SCONTROL = """\
#!/bin/bash
printf '%s\\n' "$*" >>scontrol.log
"""


@pytest.fixture
def lab(tmp_path):
    """A submit directory with a planned run, its script, and the stand-ins first on PATH."""
    hardware = read_hardware("cpu")
    plan = make_plan(job(), model("toy"), hardware)
    (tmp_path / "runs/toy").mkdir(parents=True)
    (tmp_path / "runs/toy/plan.json").write_text(dumps(plan))
    (tmp_path / "job.sbatch").write_text(render(plan, hardware, platform_of(hardware)))
    (tmp_path / "bin").mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


def start(lab: Path, ranks: str, **environment: str) -> subprocess.Popen[str]:
    (lab / "ranks.sh").write_text(ranks)
    settings = {
        **os.environ,
        "PATH": f"{lab / 'bin'}:{os.environ['PATH']}",
        "SLURM_SUBMIT_DIR": str(lab),
        "SLURM_JOB_ID": "17",
        **environment,
    }
    return subprocess.Popen(
        ["bash", "job.sbatch"], cwd=lab, env=settings, stderr=subprocess.PIPE, text=True
    )


def end(script: subprocess.Popen[str]) -> tuple[int, str]:
    _, errors = script.communicate(timeout=30)
    return script.returncode, errors


def wait_for(path: Path) -> None:
    limit = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < limit, f"{path} did not appear"
        time.sleep(0.01)


def test_a_run_that_is_done_ends_well(lab):
    assert end(start(lab, "touch $run/done")) == (0, "")
    assert not (lab / "scontrol.log").exists()


def test_the_ranks_get_the_run_folder_and_a_first_attempt(lab):
    end(start(lab, "touch $run/done"))
    called = (lab / "srun.log").read_text().strip()
    run = lab / "runs/toy"
    assert called.endswith(f"python3 -m runtime.rank --base . --attempt 0 {run}")


def test_a_second_attempt_resumes(lab):
    (lab / "runs/toy/attempt-0").mkdir()
    end(start(lab, "touch $run/done"))
    assert "--attempt 1 --resume" in (lab / "srun.log").read_text()


def test_an_end_without_the_mark_is_no_success(lab):
    code, errors = end(start(lab, "exit 0"))
    assert code == 70
    assert "without" in errors


def test_the_code_of_failed_ranks_is_the_jobs(lab):
    assert end(start(lab, "exit 65"))[0] == 65
    assert not (lab / "scontrol.log").exists()


def test_another_plan_in_the_folder_is_refused_before_anything_starts(lab):
    (lab / "runs/toy/plan.json").write_text("{}")
    code, errors = end(start(lab, "touch $run/done"))
    assert code == 78
    assert "render the job file again" in errors
    assert not (lab / "srun.log").exists()


STOPS = "mkdir -p $run/attempt-0; touch started; until [[ -e $run/attempt-0/stop ]]; do :; done"


def test_the_signal_becomes_a_file_and_the_job_is_queued_again(lab):
    script = start(lab, STOPS)
    wait_for(lab / "started")
    script.send_signal(signal.SIGUSR1)
    assert end(script) == (0, "")
    assert (lab / "scontrol.log").read_text() == "requeue 17\n"


def test_a_run_that_finishes_after_the_signal_is_not_queued_again(lab):
    script = start(lab, f"{STOPS}; touch $run/done")
    wait_for(lab / "started")
    script.send_signal(signal.SIGUSR1)
    assert end(script) == (0, "")
    assert not (lab / "scontrol.log").exists()


def test_restarts_are_bounded(lab):
    script = start(lab, STOPS, SLURM_RESTART_COUNT="5")
    wait_for(lab / "started")
    script.send_signal(signal.SIGUSR1)
    code, errors = end(script)
    assert code == 1
    assert "after 5 restarts" in errors
    assert not (lab / "scontrol.log").exists()
