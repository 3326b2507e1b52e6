"""Batch scripts: the same bytes from the same plan, valid shell, nothing unquoted."""

import re
import shutil
import subprocess
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.platforms import platform_of
from plans.hardware import read_hardware
from plans.search import make_plan, search
from plans.source import UserError
from plans.variables import Variable
from slurm.directives import directives_of
from slurm.script import quoted, render
from tests.golden.check import golden
from tests.plans.samples import job, large_job, model


def planned(chosen, name="toy"):
    return make_plan(chosen, model(name), read_hardware(chosen.cluster.hardware))


def script(chosen, name="toy", **changes):
    hardware = read_hardware(chosen.cluster.hardware)
    platform = replace(platform_of(hardware), **changes)
    return render(planned(chosen, name), hardware, platform)


def masked(text: str) -> str:
    """The script without the digest, which changes with every byte of every plan."""
    return re.sub(r"\b[0-9a-f]{64}\b", "0" * 64, text)


ONE = (Variable(name="ONE", value="a b", reason="because", source="here"),)
TWO = (*ONE, Variable(name="TWO", value="2", reason="why not", source="there", scope="tune"))


def mixed_script(**changes):
    """On a node of A100 and two of A10G; `changes` are to the keys of the second group."""
    groups = [
        {"name": "train", "hardware": "a100-sxm-80"},
        {"name": "sample", "hardware": "a10g", "nodes": 2, **changes},
    ]
    chosen = large_job(
        cluster={"groups": groups}, tokens={"prompt": 512, "response": 512}, model="0.5b"
    )
    hardware, *others = (read_hardware(group.hardware) for group in chosen.cluster.all_groups)
    found = search(chosen, model("0.5b"), hardware, others=tuple(others))
    platform = replace(platform_of(hardware), variables=ONE)
    return render(found.plan(), hardware, platform, others=tuple(others))


SCRIPTS = {
    "job-7b-h100.sbatch": lambda: masked(script(large_job(), "7b", variables=TWO)),
    "job-toy-cpu.sbatch": lambda: masked(script(job(), variables=TWO)),
    "job-mixed.sbatch": lambda: masked(mixed_script()),
    "job-7b-mi300x.sbatch": lambda: masked(
        script(large_job(cluster={"hardware": "mi300x", "nodes": 2}), "7b", variables=ONE)
    ),
}


def options(text):
    """{'nodes': '4', ...} of the header."""
    lines = re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", text, flags=re.MULTILINE)
    return dict(lines)


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_word_for_word_those_of_the_golden_files(name):
    assert SCRIPTS[name]() == golden(name)


@pytest.mark.parametrize("chosen", [(large_job(), "7b"), (job(), "toy")])
def test_scripts_are_valid_shell_with_every_variable_of_the_platform(chosen, tmp_path):
    path = tmp_path / "job.sbatch"
    path.write_text(script(*chosen))
    subprocess.run(["bash", "-n", path], check=True)


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
@pytest.mark.parametrize("chosen", [(large_job(), "7b"), (job(), "toy")])
def test_shellcheck_finds_nothing(chosen, tmp_path):
    path = tmp_path / "job.sbatch"
    path.write_text(script(*chosen))
    found = subprocess.run(["shellcheck", path], capture_output=True, text=True, check=False)
    assert found.stdout == ""


@pytest.mark.parametrize("program", [("bash", "-n"), ("shellcheck",)])
def test_a_script_of_two_kinds_of_nodes_is_valid_shell(program, tmp_path):
    if not shutil.which(program[0]):
        pytest.skip(f"{program[0]} is not installed")
    path = tmp_path / "job.sbatch"
    path.write_text(mixed_script())
    subprocess.run([*program, path], check=True)


def test_two_kinds_of_nodes_are_components_of_a_heterogeneous_job():
    text = mixed_script()
    first, second = text.split("#SBATCH hetjob\n")
    assert (options(first)["nodes"], options(first)["cpus-per-task"]) == ("1", "16")
    assert (options(second)["nodes"], options(second)["cpus-per-task"]) == ("2", "12")
    assert options(second)["partition"] == options(first)["partition"] == "gpu"
    assert text.count("--het-group=") == text.count("-m runtime.rank") == 2
    assert "--het-group=0 --nodes=1 --ntasks=8" in text
    assert "--het-group=1 --nodes=2 --ntasks=16" in text


def test_groups_of_one_kind_are_one_homogeneous_allocation():
    text = mixed_script(hardware="a100-sxm-80")
    assert "hetjob" not in text
    assert "het-group" not in text
    assert options(text)["nodes"] == "3"
    assert "--nodes=3 --ntasks=24" in text


def test_nodes_of_two_platforms_have_no_script():
    with pytest.raises(UserError, match="one platform, not cuda, rocm"):
        mixed_script(hardware="mi300x")


def test_the_header_asks_for_what_the_plan_needs():
    asked = options(script(large_job(), "7b"))
    assert asked["nodes"] == "4"
    assert asked["ntasks-per-node"] == asked["gpus-per-node"] == "8"
    assert asked["time"] == "12:00:00"
    assert asked["account"] == "abc123"
    assert asked["open-mode"] == "append"
    assert re.fullmatch(r"B:USR1@\d+", asked["signal"])


def test_a_cpu_job_asks_for_no_gpus():
    asked = options(script(job()))
    assert asked["cpus-per-task"] == "1"
    assert not {"gpus-per-node", "account", "partition"} & set(asked)


def test_the_step_repeats_what_srun_does_not_inherit():
    line = next(line for line in script(large_job(), "7b").splitlines() if line.startswith("srun"))
    for option in ("--cpus-per-task=14", "--ntasks=32", "--mpi=pmi2", "--kill-on-bad-exit=1"):
        assert f" {option} " in f"{line} "


def test_the_script_names_the_plan_it_came_from():
    assert planned(large_job(), "7b").digest in script(large_job(), "7b")


def test_the_header_stands_before_the_first_command():
    """sbatch ignores what comes after it."""
    lines = script(large_job(), "7b").splitlines()
    last = max(place for place, line in enumerate(lines) if line.startswith("#SBATCH"))
    assert all(line.startswith("#") for line in lines[: last + 1])


def test_the_signal_leaves_time_for_a_slow_step_and_a_slow_checkpoint():
    chosen = large_job()
    plan, hardware = planned(chosen, "7b"), read_hardware("h100-sxm")
    signal = dict(directives_of(plan, hardware, "pmi2").sbatch[0])["signal"]
    slow = plan.slowest * (plan.step_seconds + plan.phase("checkpoint").seconds)
    assert int(signal.removeprefix("B:USR1@")) >= slow + 60


HOSTILE = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1)


@given(HOSTILE)
def test_any_value_reaches_the_shell_as_one_word(value):
    told = subprocess.run(
        ["bash", "-c", f"printf %s {quoted(value)}"], capture_output=True, check=True
    )
    assert told.stdout.decode() == value


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "\x00", "\x1b[31m", "\x7f"])
def test_control_characters_never_reach_a_script(value):
    with pytest.raises(UserError, match="control characters are not accepted"):
        quoted(value)


def test_a_hostile_account_is_only_a_string(tmp_path):
    text = script(large_job(slurm={"account": "x'; touch hacked; '$(touch hacked)"}), "7b")
    head = text.split("set -euo pipefail")[0]
    subprocess.run(["bash", "-c", head], cwd=tmp_path, check=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slurm
def test_slurm_makes_two_components_of_two_kinds_of_nodes(cluster, tmp_path):
    """Without what only the other cluster has: its account, its partition, its cores and memory."""
    lacking = r"#SBATCH --(account|partition|exclusive|mem|cpus-per-task).*\n"
    path = tmp_path / "job.sbatch"
    path.write_text(re.sub(lacking, "", mixed_script()))
    (tmp_path / "runs").mkdir()
    job = cluster.output("sbatch", "--hold", "--parsable", str(path), folder=tmp_path).strip()
    listed = cluster.output("squeue", "--noheader", "--format=%i %D", "-j", job)
    cluster.output("scancel", job)
    assert sorted(listed.splitlines()) == [f"{job}+0 1", f"{job}+1 2"]
