"""What a site wants of a batch script: its variables, its container, checks it leaves out."""

import os
import subprocess

import pytest

from launcher.platforms import platform_of
from plans.checks import CHECK_NAMES
from plans.hardware import read_hardware
from plans.search import make_plan
from runtime.preflight import CHECKS
from slurm.containers import entrance_of
from slurm.script import render
from slurm.site import ContainerSpec, OursSpec
from tests.plans.samples import job, model

SITE = OursSpec(
    environment={"NCCL_SOCKET_IFNAME": "hsn0", "SITE_WORDS": "it's $HOME"},
    container=ContainerSpec(runtime="apptainer", image="/images/a b.sif", mounts=("/scratch",)),
    skip_checks=("links", "disk"),
)
PYXIS = ContainerSpec(runtime="pyxis", image="/images/a.sqsh", mounts=("/scratch:/scratch",))


def script(ours, hardware="cpu"):
    spec = read_hardware(hardware)
    plan = make_plan(job(), model("toy"), read_hardware("cpu"))
    return render(plan, spec, platform_of(spec), ours=ours)


def step(text):
    """The words of the srun command, as bash reads them."""
    start = text.index("\nsrun ") + 1
    command = text[start : text.index(' \\\n  2>"$said"')]
    shell = 'srun() { printf "%s\\n" "$@"; }; python=/venv/python base=b attempt=0 ends=inf run=r\n'
    shell += text[text.index("rank=(") : text.index("judge=(")]
    done = subprocess.run(
        ["bash", "-euc", shell + command],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PWD": "/submit"},
        cwd="/",
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize("ours", [None, SITE, OursSpec(container=PYXIS)])
def test_the_script_is_sound_shell_whatever_the_site_wants(ours, tmp_path):
    path = tmp_path / "job.sbatch"
    path.write_text(script(ours))
    subprocess.run(["bash", "-n", str(path)], check=True)
    subprocess.run(["shellcheck", "--exclude=SC2016", str(path)], check=True)


def test_without_a_container_the_rank_is_the_interpreter_of_the_host():
    words = step(script(None))
    assert words[words.index("-P") - 1] == "/venv/python"
    assert not [word for word in words if "container" in word]


def test_apptainer_hands_in_devices_folders_and_the_folder_of_submission():
    words = step(script(SITE))
    start = words.index("apptainer")
    assert words[start : start + 8] == [
        "apptainer",
        "exec",
        "--bind",
        "/scratch",
        "--bind",
        "/",
        "/images/a b.sif",
        "python",
    ]
    assert entrance_of(SITE.container, "cuda", ()).words[2] == "--nv"
    assert entrance_of(SITE.container, "rocm", ()).words[2] == "--rocm"


def test_pyxis_lists_the_variables_that_must_win_over_the_image():
    words = step(script(OursSpec(container=PYXIS, environment={"SITE": "1"})))
    assert "--container-image=/images/a.sqsh" in words
    assert "--container-mounts=/:/,/scratch:/scratch" in words
    (listed,) = [word for word in words if word.startswith("--container-env=")]
    assert {"SITE", "VLLM_ENABLE_V1_MULTIPROCESSING"} <= set(listed.partition("=")[2].split(","))
    assert "--no-container-mount-home" in words


def test_the_sites_variables_come_after_ours_and_win():
    lines = script(SITE, "h100-sxm").splitlines()
    exported = [line for line in lines if line.startswith("export ")]
    assert exported[-2:] == [
        "export NCCL_SOCKET_IFNAME=hsn0",
        "export SITE_WORDS='it'\"'\"'s $HOME'",
    ]


def test_checks_that_the_site_leaves_out_are_told_to_the_ranks():
    words = step(script(SITE))
    assert [words[n + 1] for n, word in enumerate(words) if word == "--skip-check"] == [
        "links",
        "disk",
    ]


def test_the_names_of_checks_are_those_of_the_preflight():
    assert CHECK_NAMES[: len(CHECKS)] == tuple(CHECKS)
    with pytest.raises(ValueError, match="did you mean 'links'"):
        OursSpec(skip_checks=("link",))


def test_a_container_without_an_image_is_refused():
    with pytest.raises(ValueError, match="apptainer needs the image"):
        ContainerSpec(runtime="apptainer")
