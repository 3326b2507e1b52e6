"""The JSON of an estimate is what docs/schema/estimate.json says."""

import json
from functools import cache

import pytest
from jsonschema import Draft202012Validator

from plans.reports.data import estimate_data
from tests.plans.reports.samples import chained, large, small
from tests.runs import ROOT

SCHEMA = json.loads((ROOT / "docs" / "schema" / "estimate.json").read_text())
large, small, chained = cache(large), cache(small), cache(chained)
ALL = pytest.mark.parametrize("make", [large, small, chained])


def through_json(estimate):
    return json.loads(json.dumps(estimate_data(estimate)))


def test_the_schema_is_one():
    Draft202012Validator.check_schema(SCHEMA)


@ALL
def test_the_json_of_an_estimate_follows_its_schema(make):
    errors = list(Draft202012Validator(SCHEMA).iter_errors(through_json(make())))
    assert [f"{error.json_path}: {error.message}" for error in errors] == []


@pytest.mark.parametrize("key", ["format", "plan", "phases", "totals"])
def test_the_schema_refuses_a_document_without(key):
    data = through_json(small())
    data.pop(key)
    assert not Draft202012Validator(SCHEMA).is_valid(data)


def test_the_schema_refuses_keys_it_does_not_know():
    assert not Draft202012Validator(SCHEMA).is_valid({**through_json(small()), "more": 1})


@ALL
def test_layouts_stand_in_order_and_the_first_is_the_plan(make):
    data = estimate_data(make())
    seconds = [one["step_seconds"] for one in data["layouts"]]
    assert seconds[1:] == sorted(seconds[1:])
    assert data["totals"]["step_seconds"]["expected"] == pytest.approx(seconds[0], rel=1e-4)


def test_every_rejection_has_its_reason():
    rejections = estimate_data(large())["rejections"]
    assert {"what": "rollout tp8", "reason": "tp 8 does not divide 28 heads"} in rejections
