"""torch.distributed over the ranks of a plan."""

import json
from pathlib import Path

from tests.runtime.worlds import run_world, world_plan

GROUPED_RANK = (str(Path(__file__).parent / "grouped_rank.py"),)


def test_ranks_meet_on_a_port_of_the_loopback_and_reduce_over_gloo(tmp_path):
    plan = world_plan(tmp_path, ranks=2)
    outcome, _ = run_world(tmp_path, plan, program=GROUPED_RANK)
    assert outcome.code == 0, outcome.text
    first, second = json.loads((tmp_path / "run" / "told.json").read_text())
    assert first["total"] == second["total"] == 6.0
    assert first["backend"] == "gloo"
    assert (first["world"], second["world"]) == (["0", "2", "0"], ["1", "2", "1"])
    assert first["meets"] == second["meets"] == ["127.0.0.1", str(first["port"])]
    assert first["manager"] == second["manager"] == []


def test_a_rank_killed_in_a_collective_is_the_cause_and_not_those_who_lost_it(tmp_path):
    plan = world_plan(tmp_path, ranks=2)
    outcome, _ = run_world(tmp_path, plan, program=GROUPED_RANK, fault="kill")
    assert (outcome.code, outcome.cause.rank, outcome.cause.phase) == (137, 1, "gen")
