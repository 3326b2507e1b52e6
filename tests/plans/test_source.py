"""Files of the user's, read with the lines of their keys."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plans.source import PlanError, SpecError, UserError, read_json, read_yaml, suggestion


def written(folder, text):
    path = folder / "job.yaml"
    path.write_text(text)
    return path


def test_every_key_knows_its_line(tmp_path):
    document = read_yaml(written(tmp_path, "a: 1\nb:\n  c: [x, {d: 2}]\n"))
    assert document.data == {"a": 1, "b": {"c": ["x", {"d": 2}]}}
    assert [document.line(at) for at in (("a",), ("b", "c"), ("b", "c", 1, "d"))] == [1, 3, 3]


def test_a_key_that_is_missing_is_told_at_its_parent(tmp_path):
    document = read_yaml(written(tmp_path, "a: 1\nb:\n  c: 2\n"))
    assert document.line(("b", "missing")) == 2
    assert document.line(("missing",)) == 1


def test_an_error_that_names_a_key_gets_the_file_and_the_line(tmp_path):
    document = read_yaml(written(tmp_path, "a: 1\nroles:\n  actor: 2\n"))
    error = document.locate(PlanError("does not fit", at=("roles", "actor")))
    assert isinstance(error, PlanError)
    assert str(error) == f"{document.path}:3: roles.actor: does not fit"


def test_an_error_about_the_whole_job_stays_as_it_is(tmp_path):
    document = read_yaml(written(tmp_path, "a: 1\n"))
    assert str(document.locate(PlanError("no layout fits"))) == "no layout fits"


def test_close_words_are_suggested_and_far_ones_are_not():
    assert suggestion("grop", ["grpo", "ppo"]) == "; did you mean 'grpo'?"
    assert suggestion("colour", ["cluster", "slurm"]) == ""


def test_json_that_is_not_json_is_told_with_its_line(tmp_path):
    path = written(tmp_path, '{"a": 1,\n"b"}')
    with pytest.raises(SpecError, match=r"job.yaml:2: not JSON: Expecting ':' delimiter"):
        read_json(path)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_bytes(b"name: \xff\n")
    with pytest.raises(SpecError, match="not UTF-8 at byte 6"):
        read_yaml(path)


@given(text=st.text(max_size=200))
def test_any_text_is_either_read_or_refused_in_one_line(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text, encoding="utf-8", errors="ignore")
    try:
        read_yaml(path)
    except UserError as error:
        message = str(error)
    else:
        message = str(path)
    assert message.startswith(str(path))
    assert "\n" not in message
