"""Which checkpoint a command means, and what it says when there is no such one."""

import shutil

import pytest

from launcher.checkpoints import version_notes
from launcher.cli import main
from launcher.ledger import note
from plans.dataflow import Role
from plans.load import make_plan
from plans.plan import FORMAT, dumps
from runtime.control import SingleControl
from tests.runtime.participants import MODEL, TensorEngine, save, tiny_plan


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run with checkpoints of steps 2 and 4, as seen from the folder of its job file."""
    tiny_plan(tmp_path)
    job = tmp_path / "job.yaml"
    job.write_text(job.read_text().replace(str(MODEL), "model"))
    shutil.copytree(MODEL, tmp_path / "model")
    plan = make_plan(job)
    folder = tmp_path / "runs/tiny"
    folder.mkdir(parents=True, mode=0o700)
    (folder / "plan.json").write_text(dumps(plan))
    for step in (2, 4):
        engines = {Role.ACTOR_TRAIN: TensorEngine(seed=step)}
        save(step, engines, {}, SingleControl(), folder, plan)
    monkeypatch.chdir(tmp_path)
    return folder


def said(capsys, *words):
    """(exit code, what was said on stderr) of an export."""
    code = main(["export", *words])
    return code, capsys.readouterr().err


@pytest.mark.usefixtures("run")
def test_a_run_that_is_not_there_is_told_with_those_that_are(capsys):
    assert said(capsys, "tini") == (2, "no run 'tini'; did you mean 'tiny'?\n")


@pytest.mark.usefixtures("run")
def test_a_step_without_a_checkpoint_is_told_with_the_steps_that_have_one(capsys):
    code, text = said(capsys, "tiny", "--step", "3")
    assert code == 2
    assert "no checkpoint of step 3; there are those of 2, 4" in text


def test_a_run_without_any_checkpoint_is_told(run, capsys):
    (run / "checkpoints").rename(run / "away")
    code, text = said(capsys, "tiny")
    assert (code, "the run has no checkpoint yet" in text) == (2, True)


@pytest.mark.usefixtures("run")
def test_a_folder_that_is_no_checkpoint_is_told(capsys, tmp_path):
    code, text = said(capsys, "tiny", "--checkpoint", str(tmp_path))
    assert code == 2
    assert "no checkpoint; give a folder such as" in text


@pytest.mark.usefixtures("run")
def test_what_stands_in_the_way_is_never_removed(capsys, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("")
    code, text = said(capsys, "tiny", "--to", "mine")
    assert code == 2
    assert "mine: is there already" in text
    assert (tmp_path / "mine/thesis.tex").exists()


@pytest.mark.usefixtures("run")
def test_a_model_that_has_moved_is_told_with_the_remedy(capsys, tmp_path):
    (tmp_path / "model").rename(tmp_path / "moved")
    code, text = said(capsys, "tiny")
    assert code == 2
    assert "model: no config.json of the run's model here; --base says where" in text


def test_a_damaged_checkpoint_is_refused_before_anything_reads_it(run, capsys, tmp_path):
    path = run / "checkpoints/step-000004/actor_train/rank-0.safetensors"
    path.write_bytes(path.read_bytes() + b"x")
    code, text = said(capsys, "tiny", "--to", "never")
    assert code == 2
    assert "rank-0.safetensors: " in text
    assert "the manifest says" in text
    assert not list(tmp_path.glob("never*"))


def test_the_base_is_what_the_ranks_wrote_down(run, capsys, tmp_path):
    note(run, "start", attempt=0, base=str(tmp_path / "elsewhere"))
    code, text = said(capsys, "tiny")
    assert code == 2
    assert "elsewhere/model: no config.json" in text


def test_a_plan_that_was_edited_or_made_by_other_code_is_refused(run, capsys):
    text = (run / "plan.json").read_text()
    (run / "plan.json").write_text(text.replace(f'"format": {FORMAT}', '"format": 2'))
    code, told = said(capsys, "tiny")
    assert (code, f"plan format 2, this rlplan reads {FORMAT}" in told) == (2, True)


def test_other_software_than_saved_a_checkpoint_is_noted(run, monkeypatch):
    monkeypatch.setattr("launcher.checkpoints.package_versions", lambda: {"torch": "1.0"})
    notes = list(version_notes(run / "checkpoints/step-000002"))
    assert notes[0].startswith("step-000002 was saved with megatron-core")
    assert notes[0].endswith("here is none")
    assert notes[1].endswith("here is 1.0")
