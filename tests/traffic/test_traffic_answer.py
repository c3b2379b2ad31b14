"""What answers must be."""

from __future__ import annotations

import pytest

from perflab.errors import TrafficError
from perflab.traffic.answer import Checks, JsonCheck, JsonPath, Judge


@pytest.mark.parametrize(
    ("checks", "status", "body", "latency_ms", "failure"),
    [
        (Checks(), 302, b"", 0, ""),
        (Checks(), 403, b"", 0, "status 403"),
        (Checks(), 500, b"", 0, "status 500"),
        (Checks(status=(503,)), 503, b"", 0, ""),
        (Checks(status=(200, 201)), 204, b"", 0, "status 204"),
        (Checks(max_ms=5), 200, b"", 5, ""),
        (Checks(max_ms=5), 200, b"", 6, "slower than 5 ms"),
        (Checks(contains=("ok",)), 200, b"all ok", 0, ""),
        (Checks(contains=("ok",)), 200, b"no", 0, "body lacks 'ok'"),
        (Checks(json=(JsonCheck("$.a"),)), 200, b"<html>", 0, "body is not JSON"),
        (Checks(json=(JsonCheck("$.a"),)), 200, b'{"a": null}', 0, ""),
        (Checks(json=(JsonCheck("$.b"),)), 200, b'{"a": 1}', 0, "$.b missing"),
        (Checks(json=(JsonCheck("$.a", exists=False),)), 200, b'{"a": 1}', 0, "$.a present"),
        (Checks(json=(JsonCheck("$.a", equals=1),)), 200, b'{"a": 1}', 0, ""),
        (Checks(json=(JsonCheck("$.a", equals=1),)), 200, b'{"a": true}', 0, "$.a differs"),
        (Checks(json=(JsonCheck("$.a[-1]", equals="x"),)), 200, b'{"a": ["y", "x"]}', 0, ""),
        (Checks(json=(JsonCheck("$"),)), 200, b"[" * 100_000, 0, "body is not JSON"),
    ],
)
def test_judging(checks, status, body, latency_ms, failure):
    """An answer is good, or the first thing wrong with it is named."""
    assert Judge(checks).judge(status, body, latency_ms * 1_000_000).failure == failure


def test_values_are_captured_from_good_answers_only():
    """A failed answer gives nothing away; an answer without the value is a failed one."""
    judge = Judge(Checks(status=(200,)), {"order_id": "$.order.id"})
    assert judge.judge(200, b'{"order": {"id": "a1"}}', 0) == ("", {"order_id": "a1"})
    assert judge.judge(409, b'{"order": {"id": "a1"}}', 0) == ("status 409", {})
    assert judge.judge(200, b'{"order": {}}', 0) == ("nothing to capture at $.order.id", {})
    assert judge.judge(200, b'{"order": {"id": [1]}}', 0) == ("nothing to capture at $.order.id", {})


def test_bodies_are_kept_only_where_needed():
    """Statuses and times are judged without a body."""
    assert not Judge(Checks(status=(200,), max_ms=1)).needs_body
    assert Judge(Checks(), {"x": "$.x"}).needs_body


@pytest.mark.parametrize("text", ["", "a", "$a", "$.", "$..a", "$.a[x]", "$.a b", "$[*]"])
def test_wrong_paths_are_refused(text):
    """A path is names and positions only."""
    with pytest.raises(TrafficError, match="not a JSON path"):
        JsonPath(text)
