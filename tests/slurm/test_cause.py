"""The first cause of an end, from what ranks and srun left; srun's lines are real ones."""

import json

import pytest

from launcher.badnodes import EXPIRY_SECONDS, read_bad_nodes, remember
from launcher.cause import find_cause
from runtime.verdict import SPOKEN

BEAT = {"host": "node1", "pid": 1, "phase": "gen", "step": 4, "count": 20, "unix_seconds": 1.0}
KILLED = """\
srun: error: node1: task 1: Killed
srun: launch/slurm: _step_signal: Terminating StepId=7.0
srun: error: node0: task 0: Terminated
"""
ENDED = """\
srun: error: node1: task 1: Exited with exit code 1
srun: launch/slurm: _step_signal: Terminating StepId=5.0
slurmstepd-node0: error: *** STEP 5.0 ON node0 CANCELLED AT 2026-11-21T11:56:37 ***
srun: error: node0: task 0: Terminated
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "heartbeat").mkdir()
    for rank in (0, 1):
        beat = {**BEAT, "rank": rank, "host": f"node{rank}", "waiting": rank == 0}
        (tmp_path / "heartbeat" / f"{rank}.json").write_text(json.dumps(beat))
    return tmp_path


def cause(folder, said, code=143):
    (folder / "logs" / "srun.log").write_text(said)
    return find_cause(folder, code)


@pytest.mark.parametrize(
    ("word", "code"),
    [("Killed", 137), ("Segmentation fault", 139), ("Bus error", 135), ("Out Of Memory", 137)],
)
def test_a_killed_rank_is_known_by_what_srun_saw(folder, word, code):
    found = cause(folder, KILLED.replace("Killed", word))
    assert found.code == code
    assert found.text.startswith("rank 1 (node1) in gen of step 4: killed by SIG")
    assert found.suspects == ("node1",)


def test_a_verdict_counts_more_than_the_code_of_srun(folder):
    verdict = {**BEAT, "rank": 0, "code": 76, "reason": "no such reward"}
    kept = {name: verdict[name] for name in ("rank", "host", "phase", "step", "code", "reason")}
    found = cause(folder, f"{SPOKEN}{json.dumps(kept)}\n{KILLED}", 137)
    assert (found.code, found.suspects) == (76, ())
    assert "no such reward" in found.text


def test_a_rank_that_lost_a_killed_peer_is_not_the_cause(folder):
    lost = {"rank": 0, "host": "node0", "phase": "gen", "step": 4, "code": 79, "reason": "late"}
    assert cause(folder, f"{SPOKEN}{json.dumps(lost)}\n{KILLED}").code == 137


def test_a_hang_lies_with_the_node_that_the_others_waited_for(folder):
    lost = {"rank": 0, "host": "node0", "phase": "gen", "step": 4, "code": 79, "reason": "late"}
    found = cause(folder, f"{SPOKEN}{json.dumps(lost)}\n", 79)
    assert (found.code, found.suspects) == (79, ("node1",))


def test_where_python_did_not_start_the_first_exit_is_the_cause(folder):
    assert cause(folder, ENDED).code == 1
    assert "rank 1 ended with code 1 before it could say why" in cause(folder, ENDED).text


def test_bad_nodes_are_forgotten_after_a_day(tmp_path):
    remember(tmp_path, ["node1"], "killed", now=0.0)
    assert [node.name for node in read_bad_nodes(tmp_path, EXPIRY_SECONDS - 1)] == ["node1"]
    assert read_bad_nodes(tmp_path, EXPIRY_SECONDS + 1) == ()
    remember(tmp_path, ["node1", "node2"], "killed", now=2 * EXPIRY_SECONDS)
    found = read_bad_nodes(tmp_path, 2 * EXPIRY_SECONDS)
    assert [(node.name, node.times) for node in found] == [("node1", 2), ("node2", 1)]


def test_a_damaged_memory_of_bad_nodes_stops_nothing(tmp_path):
    (tmp_path / "bad-nodes.json").write_text("{")
    assert read_bad_nodes(tmp_path, 0.0) == ()
