"""`rlplan doctor env`: an existing script or environment, judged variable by variable."""

import io
from pathlib import Path

import pytest

from launcher.cli import main
from launcher.doctor_env import lint, settings_of
from launcher.known_variables import KNOWN, is_secret

SCRIPT = Path(__file__).parent / "scripts" / "mi300.sh"


def named(findings, check):
    """The variables that findings of one kind name."""
    return {one.text.split(": ")[1].split("=")[0] for one in findings if one.check == check}


def test_the_much_copied_mi300_script_is_taken_apart():
    found = lint(SCRIPT)
    assert named(found, "dead") == {
        "NCCL_CHECKS_DISABLE",
        "RCCL_MSCCL_ENABLE",
        "TRANSFORMERS_CACHE",
    }
    assert named(found, "debug") == {"NCCL_DEBUG", "NCCL_PROTO"}
    assert named(found, "site") == {"NCCL_IB_HCA", "NCCL_IB_GID_INDEX", "NCCL_CROSS_NIC"}
    assert named(found, "ours") == {
        "GPU_MAX_HW_QUEUES",
        "TORCH_NCCL_HIGH_PRIORITY",
        "HSA_NO_SCRATCH_RECLAIM",
        "CUDA_DEVICE_MAX_CONNECTIONS",
        "TOKENIZERS_PARALLELISM",
    }
    failed = [one.text for one in found if one.state == "failure"]
    assert len(failed) == 3
    assert "WANDB_API_KEY" in failed[0]
    assert "CUDA_VISIBLE_DEVICES and HIP_VISIBLE_DEVICES and ROCR_VISIBLE_DEVICES" in failed[1]
    assert "docker image prune" in failed[2]
    habits = [one.text for one in found if one.check == "script"]
    assert habits == [
        "line 20: docker image prune",
        "line 21: --privileged",
        "line 28: printenv",
        "line 29: | tee",
    ]


def test_a_secret_is_named_and_never_repeated(capsys):
    assert main(["doctor", "env", str(SCRIPT)]) == 1
    printed = capsys.readouterr()
    assert "WANDB_API_KEY" in printed.out
    assert "0123456789abcdef" not in printed.out + printed.err


@pytest.mark.parametrize(
    ("line", "pairs"),
    [
        ("export A=1 B='two words'", {"A": "1", "B": "two words"}),
        ('  A="x y" python train.py', {"A": "x y"}),
        ("docker run -e A=1 --env B=2 --env=C=3 image", {"A": "1", "B": "2", "C": "3"}),
        ("#SBATCH --export=ALL,A=1,B=2", {"A": "1", "B": "2"}),
        ("srun --export=NONE,A=1 python x.py", {"A": "1"}),
        ("ENV A 1", {"A": "1"}),
        ("os.environ['A'] = '1'", {"A": "1"}),
        ("# export A=1", {}),
        ("[[ $A == 1 ]]", {}),
    ],
)
def test_variables_are_found_in_all_their_forms(line, pairs):
    assert {one.name: one.value for one in settings_of(line)} == pairs


def test_what_stands_in_a_command_line_is_readable_by_all(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("srun --export=ALL,HF_TOKEN=hf_abc python x.py\n"))
    assert main(["doctor", "env", "-"]) == 1
    assert "in a command line that every user of the node can read" in capsys.readouterr().out


def test_the_place_of_a_secret_is_no_secret():
    assert is_secret("HF_TOKEN")
    assert is_secret("AWS_SECRET_ACCESS_KEY")
    assert not is_secret("HF_TOKEN_PATH")
    assert not is_secret("TOKENIZERS_PARALLELISM")


def test_the_output_of_env_is_counted_and_not_printed(monkeypatch, capsys):
    text = "HOME=/home/me\nLS_COLORS=x\nNCCL_P2P_DISABLE=1\nPYTHONUNBUFFERED=1\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert main(["doctor", "env", "-"]) == 1
    printed = capsys.readouterr().out
    assert "2 others mean nothing to rlplan" in printed
    assert "/home/me" not in printed
    assert "takes away a link that the plan counts on" in printed


def test_two_allocator_variables_are_refused(monkeypatch, capsys):
    text = "PYTORCH_ALLOC_CONF=a:1\nPYTORCH_HIP_ALLOC_CONF=b:1\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert main(["doctor", "env", "-"]) == 1
    assert "torch reads one of them" in capsys.readouterr().out


def test_pipefail_makes_tee_harmless(tmp_path):
    script = tmp_path / "job.sh"
    script.write_text("set -euo pipefail\npython x.py | tee log\n")
    assert lint(script) == []


def test_a_file_that_is_not_there_is_one_line(capsys):
    assert main(["doctor", "env", "nowhere.sh"]) == 2
    assert capsys.readouterr().err == "nowhere.sh: no such file or directory\n"


def test_our_own_batch_script_has_nothing_to_be_judged(tmp_path):
    from launcher.platforms import platform_of
    from plans.hardware import read_hardware
    from plans.search import make_plan
    from slurm.script import render
    from tests.plans.samples import large_job, model

    hardware = read_hardware("mi300x")
    plan = make_plan(large_job(cluster={"hardware": "mi300x", "nodes": 8}), model("7b"), hardware)
    script = tmp_path / "job.sbatch"
    script.write_text(render(plan, hardware, platform_of(hardware)))
    assert [one for one in lint(script) if one.state != "ok"] == []


def test_what_is_known_has_a_reason():
    assert all(one.reason for one in KNOWN)
    assert all(one.source or one.verdict == "harmless" for one in KNOWN)
