"""What the documents say is so: blocks, links, commands."""

import re
import shlex

import pytest

from launcher.cli import commands
from tests.runs import ROOT

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
README = (ROOT / "README.md").read_text()


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language ('': of any) in a document."""
    return re.findall(rf"^```{language or '[a-z]*'}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_the_first_two_blocks_of_the_readme_install_and_run_and_install_and_test():
    run, test = blocks(README, "bash")[:2]
    assert run.splitlines() == [
        "bash install.sh",
        ".venv/bin/rlplan run examples/addition-grpo.yaml --overwrite",
    ]
    assert test.splitlines()[0] == "bash install.sh test"
    assert "-m pytest" in test


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)", path.read_text()):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_in_documents_exist_with_their_options(path):
    text = "".join(blocks(path.read_text(), ""))
    for line in re.findall(r"^(?:\$ |\.venv/bin/)?rlplan (.*)$", text, re.MULTILINE):
        words = shlex.split(line.partition("#")[0].partition("|")[0].partition(">")[0])
        command = commands().get(words[0]) if words else None
        assert command is not None, line
        known = {option for parameter in command.params for option in parameter.opts}
        used = {word.partition("=")[0] for word in words[1:] if word.startswith("-")}
        assert used <= known | {"--help"}, line


def test_ci_runs_the_test_command_of_the_readme():
    text = (ROOT / ".ci" / "run").read_text()
    assert "README.md" in text
    assert "pytest" not in text
