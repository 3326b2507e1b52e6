"""What the user reads: estimates, plans and explanations, compared with tests/golden."""

import re

import pytest

from plans.estimate import Estimate, estimate_of
from plans.hardware import read_hardware
from plans.report import COLUMNS, estimate_text, explain_text, plan_text
from plans.search import search
from tests.golden.check import golden
from tests.plans.samples import job, large_job, model

PPO = {"name": "ppo", "kl": {"weight": 0.1}}


def estimated(chosen, name="toy") -> Estimate:
    return estimate_of(search(chosen, model(name), read_hardware(chosen.cluster.hardware)))


def large() -> Estimate:
    return estimated(large_job(), "7b")


def small() -> Estimate:
    return estimated(job(algorithm=PPO, cluster={"hardware": "cpu", "ranks": 4}))


def chained() -> Estimate:
    return estimated(
        large_job(
            cluster={"hardware": "mi300x", "nodes": 2},
            roles={"actor_train": {"tp": 4}, "actor_rollout": {"tp": 1}},
        ),
        "7b",
    )


def masked(text: str) -> str:
    """The text without the digest, which changes with every byte of every plan."""
    return re.sub(r"^plan [0-9a-f]{8} ", "plan 00000000 ", text, flags=re.MULTILINE)


TEXTS = {
    "estimate-7b-h100.txt": lambda: masked(estimate_text(large())),
    "estimate-toy-cpu.txt": lambda: masked(estimate_text(small())),
    "estimate-7b-mi300x.txt": lambda: masked(estimate_text(chained())),
    "plan-7b-h100.txt": lambda: masked(plan_text(large())),
    "explain-7b-h100.txt": lambda: masked(explain_text(large(), {})),
    "explain-7b-h100-tp8.txt": lambda: masked(explain_text(large(), {"tp": 8})),
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts_are_word_for_word_those_of_the_golden_files(name):
    assert TEXTS[name]() == golden(name)


@pytest.mark.parametrize("name", TEXTS)
def test_no_line_is_wider_than_a_terminal_or_ends_in_blanks(name):
    for line in TEXTS[name]().splitlines():
        assert len(line) <= COLUMNS
        assert line == line.rstrip()


def test_an_estimate_names_the_exact_plan():
    estimate = large()
    assert f"plan {estimate.plan.digest[:8]} · " in estimate_text(estimate)


def test_the_seconds_of_the_phases_add_up_to_the_step():
    estimate = large()
    assert sum(phase.seconds for phase in estimate.phases) == pytest.approx(estimate.step_seconds)


def test_the_account_of_the_peak_adds_up_and_fits():
    peak = large().peak
    assert sum(count for _, count in peak.use.items()) == peak.use.total
    assert peak.use.total == max(phase.peak_bytes for phase in large().plan.phases)
    assert peak.use.total <= large().hardware.memory_bytes


def test_the_interval_holds_the_plan_and_comes_from_the_hardware_file():
    estimate = large()
    assert (estimate.low(100), estimate.high(100)) == (60, 250)
    assert estimate.data()["band"] == [0.6, 2.5]


def test_device_hours_are_devices_times_hours():
    estimate = large()
    assert estimate.device_hours == pytest.approx(32 * estimate.chain.seconds / 3600)


def test_no_phase_is_faster_than_the_device_can_be():
    for phase in large().phases:
        assert 0 <= phase.flops_share < 1


def test_the_json_of_an_estimate_has_every_layout_and_every_reason():
    data = large().data()
    assert data["layouts"][0]["step_seconds"] == pytest.approx(data["step_seconds"], rel=1e-5)
    assert {"what": "rollout tp8", "reason": "tp 8 does not divide 28 heads"} in data["rejections"]
    assert data["peak"]["bytes"] == sum(data["peak"]["kinds"].values())


def test_why_not_narrows_the_list_to_the_layouts_asked_for():
    text = explain_text(large(), {"tp": 4, "pp": 2})
    shown = [line for line in text.splitlines() if line.startswith("tp")]
    assert shown
    assert all(line.startswith("tp4 pp2 dp4") for line in shown)
