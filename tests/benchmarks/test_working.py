"""No published run that worked is called out of memory."""

from pathlib import Path

import pytest

from benchmarks.predict import Model, Read
from benchmarks.rows import read_rows
from benchmarks.spellings import kind_of
from benchmarks.working import serving_fits, step_fits, training_verdict
from plans.source import PlanError

DATA = Path(__file__).parents[2] / "benchmarks" / "data"
FILES = ("validation.csv", "train_vtrain_single_node.csv", "h200_own.csv")


def readable(kinds: tuple[str, ...]) -> list[Read]:
    """The published rows of those kinds that the model has a value for."""
    model = Model()
    rows = [row for name in FILES for row in read_rows(DATA / name) if kind_of(row) in kinds]
    return [model.read(row) for row in rows if not model.predict(row).refused]


@pytest.mark.slow
def test_every_published_training_run_fits() -> None:
    found = readable(("train",))
    verdicts = {
        each.row.id: training_verdict(each.row, each.stack, each.device).fits for each in found
    }
    assert len(verdicts) > 1800
    assert [name for name, fits in verdicts.items() if not fits] == []


def test_every_published_replica_of_known_width_fits() -> None:
    found = [each for each in readable(("prefill", "decode")) if each.row.count("tp")]
    assert len(found) > 190
    assert [each.row.id for each in found if not serving_fits(each.row, each.device)] == []


def test_every_published_rl_step_fits() -> None:
    found = readable(("rlhf_step",))
    assert len(found) > 40
    assert [e.row.id for e in found if not step_fits(e.row, e.stack, e.device)] == []


def test_a_model_too_large_for_its_devices_does_not_fit() -> None:
    read = next(each for each in readable(("train",)) if each.row.id == "sc21t1-001")
    cells = {**read.row.cells, "layers": "96", "hidden": "12288", "heads": "96", "ffn": "49152"}
    row = type(read.row)(id="larger", cells=cells, line=1)
    with pytest.raises(PlanError):
        training_verdict(
            type(row)(id="none", cells={**cells, "gpus": "", "dp": ""}, line=1), "x", read.device
        )
    assert not training_verdict(row, read.stack, read.device).fits
