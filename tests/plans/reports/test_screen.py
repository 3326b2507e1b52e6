"""What the user reads: estimates, plans and explanations, compared with tests/golden."""

from functools import cache

import pytest

from plans.reports.detail import detail_text
from plans.reports.explain import explain_text
from plans.reports.screen import estimate_text, plan_text
from plans.whatif import roomier
from tests.golden.check import golden
from tests.plans.reports.samples import chained, large, masked, small

large, small, chained = cache(large), cache(small), cache(chained)
TEXTS = {
    "estimate-7b-h100.txt": lambda: masked(estimate_text(large())),
    "estimate-7b-h100-80.txt": lambda: masked(estimate_text(large(), 80)),
    "estimate-toy-cpu.txt": lambda: masked(estimate_text(small())),
    "estimate-7b-mi300x.txt": lambda: masked(estimate_text(chained())),
    "detail-7b-h100.txt": lambda: masked(detail_text(large())),
    "plan-7b-h100.txt": lambda: masked(plan_text(large())),
    "explain-7b-h100.txt": lambda: masked(explain_text(large(), roomier(large().search))),
}
ONE_SCREEN = 45


@pytest.mark.parametrize("name", TEXTS)
def test_texts_are_word_for_word_those_of_the_golden_files(name):
    assert TEXTS[name]() == golden(name)


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize("make", [large, small, chained])
def test_no_line_is_wider_than_the_terminal_or_ends_in_blanks(make, width):
    for text in (estimate_text, plan_text, detail_text):
        for line in text(make(), width).splitlines()[1:]:
            assert len(line) <= width, line
            assert line == line.rstrip()


@pytest.mark.parametrize("make", [large, small, chained])
def test_an_estimate_is_one_screen(make):
    assert len(estimate_text(make()).splitlines()) <= ONE_SCREEN


def test_an_estimate_names_the_exact_plan():
    assert f"{large().plan.digest[:8]} · " in estimate_text(large())
