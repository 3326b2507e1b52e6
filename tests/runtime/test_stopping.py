"""Reasons to stop after a step: a file, a signal, the clock."""

import math
import os
import signal
import time

from runtime.stopping import Stops


def test_without_a_reason_a_run_goes_on(tmp_path):
    assert Stops(folder=tmp_path).reason() == ""
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_a_reason_and_may_say_which(tmp_path):
    (tmp_path / "stop").touch()
    assert Stops(folder=tmp_path).reason() == "asked"
    (tmp_path / "stop").write_text("user\n")
    assert Stops(folder=tmp_path).reason() == "user"


def test_the_last_step_is_begun_only_when_it_and_a_checkpoint_fit(tmp_path):
    planned = {"folder": tmp_path, "step_seconds": 100.0, "save_seconds": 20.0}
    assert Stops(ends=time.time() + 1000, **planned).reason() == ""
    assert Stops(ends=time.time() + 110, **planned).reason() == "limit"
    assert (tmp_path / "stop").read_text() == "limit\n"


def test_a_step_that_took_longer_than_planned_is_reckoned_with(tmp_path):
    stops = Stops(folder=tmp_path, step_seconds=1.0, ends=math.inf)
    assert stops.reason() == ""
    stops._last -= 100
    stops.ends = time.time() + 90
    assert stops.reason() == "limit"


def test_termination_is_a_wish_to_stop_in_good_order(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    stops = Stops(folder=tmp_path)
    try:
        stops.heed_termination()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stops.reason() == "terminated"
    finally:
        signal.signal(signal.SIGTERM, before)
