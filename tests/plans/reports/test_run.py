"""The progress line of a step."""

from plans.record import StepRecord
from plans.reports.run import step_line

MEASURED = {
    "reward/mean": 0.4123,
    "actor/kl": 0.00312,
    "actor/pg_loss": -0.0214,
    "response_length/mean": 4.08,
    "perf/throughput": 1602.4,
    "timing_s/gen": 0.12,
    "timing_s/update_actor": 0.15,
    "timing_s/old_log_prob": 0.03,
    "timing_s/reward": 0.0001,
    "timing_s/step": 0.312,
}


def test_the_line_of_a_step():
    record = StepRecord(step=12, metrics=MEASURED)
    assert step_line(record, plan_seconds=0.28, steps=300, eta_seconds=40.2) == (
        "step  12/300 · reward 0.412 · kl 0.0031 · loss -0.021 · len 4.08 · 1,602 tok/s · "
        "0.312 s (plan 0.28) · update 0.15 gen 0.12 old 0.03 · eta 40 s"
    )


def test_what_was_not_measured_is_left_out():
    record = StepRecord(step=1, metrics={"reward/mean": 0.0})
    assert step_line(record, plan_seconds=1, steps=9, eta_seconds=None) == (
        "step 1/9 · reward 0.000"
    )
