"""NVIDIA's optional libraries are told apart from what else has their names."""

import sys

import pytest

from runtime.accelerators import ABSENT, accelerators, foreign_apex
from runtime.control import SingleControl
from runtime.versions import run_versions


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Puts packages into a folder that Python searches first, whose import would fail."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(*names, **versions):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("raise RuntimeError('nobody may import this')\n")
        for name, number in versions.items():
            about = tmp_path / f"{name}-{number}.dist-info"
            about.mkdir()
            (about / "METADATA").write_text(
                f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n"
            )

    return install


def test_the_apex_of_pypi_is_not_taken_for_nvidias(installed):
    installed("apex/__init__.py", "apex/models.py", apex="0.9.10")
    assert accelerators()["apex"] == ABSENT
    assert foreign_apex()


def test_apex_without_its_kernels_is_not_used(installed):
    installed("apex/__init__.py", "apex/optimizers/__init__.py", apex="0.1")
    assert accelerators()["apex"] == ABSENT


def test_nvidias_apex_is_named_with_its_version_and_not_imported(installed):
    installed("apex/__init__.py", "apex/optimizers/__init__.py", "amp_C.py", apex="0.1")
    assert accelerators()["apex"] == "0.1"
    assert not foreign_apex()
    assert "apex" not in sys.modules


def test_transformer_engine_is_named_with_its_version(installed):
    installed("transformer_engine/__init__.py", transformer_engine_cu12="2.11.0")
    assert accelerators()["transformer-engine"] == "2.11.0"


def test_a_run_names_what_is_absent():
    versions = run_versions(SingleControl())
    assert set(accelerators()) <= set(versions)


def test_nothing_here_installs_apex_by_name():
    from tests.runs import ROOT

    recipes = [*ROOT.glob("constraints/*"), *ROOT.glob("containers/*"), ROOT / "setup.py"]
    recipes += [ROOT / "install.sh", *ROOT.glob("rocm/*"), ROOT / "plans" / "software.yaml"]
    for path in recipes:
        for line in path.read_text().splitlines() if path.is_file() else ():
            wanted = line.strip().strip("\"',").lower().partition("#")[0]
            assert not wanted.startswith("apex"), f"{path}: {line}"
            assert "install apex" not in wanted, f"{path}: {line}"
