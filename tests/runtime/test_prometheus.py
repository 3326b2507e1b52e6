"""The text file is what Prometheus' own parser reads, and the dashboard asks for what is in it."""

import json
import math
import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from plans.record import StepRecord
from runtime.prometheus import FILE, PrometheusFile, gauge_name

ROOT = Path(__file__).parents[2]


def written(folder: Path, *metrics: dict[str, float]) -> dict[tuple[str, str], float]:
    """(name, phase) -> value in the file after these steps; phase is '' for plain gauges."""
    file = PrometheusFile(folder)
    for step, values in enumerate(metrics, start=1):
        file.step(StepRecord(step=step, metrics=values))
    file.close()
    families = text_string_to_metric_families((folder / FILE).read_text())
    samples = [sample for family in families for sample in family.samples]
    assert {sample.labels["run"] for sample in samples} == {folder.name}
    return {(sample.name, sample.labels.get("phase", "")): sample.value for sample in samples}


def test_the_file_holds_the_newest_step(tmp_path):
    found = written(tmp_path, {"reward/mean": 0.25}, {"reward/mean": 0.5, "actor/kl": 0.001})
    assert found["rlplan_step", ""] == 2
    assert found["rlplan_reward_mean", ""] == 0.5
    assert found["rlplan_actor_kl", ""] == 0.001


def test_phases_and_their_plan_are_one_family_each(tmp_path):
    found = written(tmp_path, {"timing_s/gen": 0.5, "timing_s/step": 1, "plan/timing_s/gen": 0.4})
    assert found["rlplan_phase_seconds", "gen"] == 0.5
    assert found["rlplan_phase_seconds", "step"] == 1
    assert found["rlplan_planned_seconds", "gen"] == 0.4


def test_a_number_that_is_not_finite_is_nan(tmp_path):
    assert math.isnan(written(tmp_path, {"reward/mean": math.inf})["rlplan_reward_mean", ""])


def test_the_file_is_its_owners_alone(tmp_path):
    written(tmp_path, {"reward/mean": 1.0})
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


def test_steps_of_milliseconds_do_not_write_each_time(tmp_path):
    file = PrometheusFile(tmp_path)
    file.step(StepRecord(step=1, metrics={"reward/mean": 1}))
    first = (tmp_path / FILE).stat().st_mtime_ns
    for step in range(2, 50):
        file.step(StepRecord(step=step, metrics={"reward/mean": step}))
    assert (tmp_path / FILE).stat().st_mtime_ns == first


def test_the_dashboard_asks_only_for_metrics_that_the_glossary_promises():
    board = json.loads((ROOT / "docs/grafana/rlplan.json").read_text())
    asked = {
        re.match(r"\w+", target["expr"])[0]
        for panel in board["panels"]
        for target in panel["targets"]
    }
    names = re.findall(r"`([a-z_]+/[a-z_]+)`", (ROOT / "docs/glossary.md").read_text())
    promised = {gauge_name(name) for name in names}
    families = {"rlplan_step", "rlplan_phase_seconds", "rlplan_planned_seconds"}
    assert len(asked) >= 10
    assert asked <= promised | families
