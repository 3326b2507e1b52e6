"""`rlplan doctor container` and `image`: recipes judged without being built, and chosen by plan."""

import json

import pytest

from launcher.cli import main
from launcher.doctor_container import lint
from launcher.doctor_image import choose, commands
from plans.hardware import known_hardware
from plans.software import read_software
from tests.runs import ROOT, write_job

RECIPES = [
    "containers/cpu.Dockerfile",
    "containers/cuda.Dockerfile",
    "containers/cuda.def",
    "containers/compose.yaml",
    "rocm/Dockerfile",
    "rocm/apptainer.def",
]
DOCKERFILE = """\
FROM nvidia/cuda:13.0.2-cudnn-devel-ubuntu24.04
LABEL rlplan.software="cuda-13.0"
RUN pip install --no-cache-dir -c c.txt vllm
USER me
"""
COMPOSE = """\
services:
  rank:
    image: rlplan:cuda-13.0
    gpus: all
    shm_size: 16gb
    ulimits: {memlock: -1}
"""


def failed(folder, text, name="Dockerfile"):
    """The failures and warnings of a recipe with this text."""
    path = folder / name
    path.write_text(text)
    return [str(one) for one in lint(path) if one.state != "ok"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_our_own_recipes_pass_and_say_what_was_verified(recipe):
    found = lint(ROOT / recipe)
    assert [str(one) for one in found if one.state != "ok"] == []
    assert "read, not built" in found[-1].text
    if not recipe.endswith("yaml"):
        assert any("verified: " in one.text for one in found)


def test_every_row_of_software_has_its_recipes():
    for row in read_software():
        assert (ROOT / row.recipe).exists()
        assert not row.definition or (ROOT / row.definition).exists()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (":13.0.2-cudnn-devel-ubuntu24.04", ":latest", "no fixed image"),
        (":13.0.2-cudnn-devel-ubuntu24.04", "", "no fixed image"),
        ("13.0.2-cudnn", "12.8.1-cudnn", "row cuda-13.0 starts from"),
        ('"cuda-13.0"', '"mine"', "names no row"),
        ("vllm", "vllm==0.11.0", "vllm 0.11.0, row cuda-13.0 has 0.24.0"),
        ("-c c.txt vllm", "vllm", "vllm has no version"),
        ("-c c.txt vllm", "apex==0.1", "apex on PyPI is an unrelated package"),
        ("USER me", "USER root", "runs as root"),
        ("USER me", "RUN curl https://x.org/i.sh | bash\nUSER me", "from the network unread"),
        ("USER me", "ENV HF_TOKEN=hf_abc\nUSER me", "HF_TOKEN is baked into the image"),
        ("USER me", "ENV NCCL_IB_HCA=mlx5_0\nUSER me", "NCCL_IB_HCA=mlx5_0: of one site"),
        ("USER me", "ENV NCCL_DEBUG=INFO\nUSER me", "NCCL_DEBUG=INFO: debug only"),
        ("USER me", "EXPOSE 8000\nUSER me", "listens on no port"),
        ("USER me", "RUN apt-get install -y git\nUSER me", "package lists stay"),
    ],
)
def test_each_mistake_of_a_dockerfile_is_found(old, new, words, tmp_path):
    assert failed(tmp_path, DOCKERFILE) == []
    text = DOCKERFILE.replace(old, new, 1)
    assert any(words in one for one in failed(tmp_path, text)), failed(tmp_path, text)


def test_a_secret_in_a_recipe_is_not_repeated(tmp_path, capsys):
    path = tmp_path / "Dockerfile"
    path.write_text(DOCKERFILE.replace("USER", "ENV HF_TOKEN=hf_abc\nUSER"))
    assert main(["doctor", "container", str(path)]) == 1
    assert "hf_abc" not in capsys.readouterr().out


def test_pip_must_not_replace_the_torch_of_a_rocm_image(tmp_path):
    text = (ROOT / "rocm/Dockerfile").read_text() + "RUN pip install torch==2.11.0\n"
    assert any("into an image of ROCm" in one for one in failed(tmp_path, text))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("    shm_size: 16gb\n", "", "/dev/shm is 64 MiB"),
        ("{memlock: -1}", "{nofile: 10}", "locked memory is limited"),
        ("gpus: all", "gpus: all\n    privileged: true", "the whole host"),
        ("gpus: all", 'gpus: all\n    ports: ["8000:8000"]', "open to everybody"),
        ("gpus: all", "gpus: all\n    environment: {HF_TOKEN: hf_a}", "has its value in the file"),
        (":cuda-13.0", "", "no fixed image"),
        (
            "gpus: all",
            'gpus: all\n    volumes: ["/var/run/docker.sock:/s"]',
            "root of the host",
        ),
    ],
)
def test_each_mistake_of_a_compose_file_is_found(old, new, words, tmp_path):
    assert failed(tmp_path, COMPOSE, "compose.yaml") == []
    found = failed(tmp_path, COMPOSE.replace(old, new, 1), "compose.yaml")
    assert any(words in one for one in found), found


@pytest.mark.parametrize("text", ["hello\n", "services: []\n", "services: {a: 3}\n"])
def test_what_is_no_recipe_is_one_line(text, tmp_path, capsys):
    path = tmp_path / "file"
    path.write_text(text)
    assert main(["doctor", "container", str(path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("hardware", known_hardware())
def test_every_kind_of_hardware_gets_an_image_and_its_reason(hardware):
    row, others = choose(hardware)
    assert hardware in row.gpus
    assert len(others) == len(read_software()) - 1
    assert any("docker build" in line for line in commands(row))


def test_the_image_follows_from_the_job(tmp_path, capsys):
    assert main(["doctor", "image", str(write_job(tmp_path))]) == 0
    assert capsys.readouterr().out.startswith("cpu: cpu\n")
    assert main(["doctor", "image", "--hardware", "mi250x-gcd", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["name"] == "rocm-7.2"
    assert f"BASE={told['base']}" in "\n".join(told["commands"])
    assert "rocm-7.14: not for mi250x-gcd" in "\n".join(told["others"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give a job file or --hardware"),
        (["--hardware", "mi3000x"], "did you mean 'mi300x'?"),
        (["nowhere.yaml"], "nowhere.yaml: no such file"),
    ],
)
def test_a_wrong_question_is_answered_in_one_line(arguments, words, capsys):
    assert main(["doctor", "image", *arguments]) == 2
    assert words in capsys.readouterr().err
