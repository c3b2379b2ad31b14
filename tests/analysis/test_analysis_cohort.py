"""Slow against fast, loaded against unloaded."""

from __future__ import annotations

import numpy as np
import pytest
from made_shop import shop

from perflab.analysis.bottleneck import NAMED, bottlenecks
from perflab.analysis.cohort import split_cohorts
from perflab.analysis.criticalpath import critical_path
from perflab.errors import AnalysisError
from perflab.testing import S, spans


def test_each_entry_operation_is_split_on_its_own():
    """By hand: 100 requests of one, 400 of another that are all longer."""
    short = [S("shop", "GET /a", 2000 * at, 2000 * at + 1 + at, kind="server") for at in range(100)]
    long = [S("shop", "GET /b", 2000 * at, 2000 * at + 1000 + at, kind="server") for at in range(400)]
    slow, fast, note = split_cohorts(spans(short + long), "fast")
    of_slow, of_fast = (table.groupby("name", observed=True)["duration_ns"] for table in (slow, fast))
    assert of_slow.size().to_dict() == {"GET /a": 20, "GET /b": 40}
    assert of_fast.size().to_dict() == {"GET /a": 50, "GET /b": 200}
    assert of_slow.min().to_dict() == {"GET /a": 81e6, "GET /b": 1360e6}
    assert of_fast.max().to_dict() == {"GET /a": 50e6, "GET /b": 1199e6}
    assert "(60 and 250); they differ by construction" in note


def test_load_is_what_is_in_flight_as_a_request_begins():
    """A burst after requests far apart: its requests are the loaded ones."""
    apart = [S("shop", "GET /", 1000 * at, 1000 * at + 50, kind="server") for at in range(60)]
    burst = [S("shop", "GET /", 100_000 + at, 100_000 + at + 90, kind="server") for at in range(30)]
    loaded, unloaded, _ = split_cohorts(spans(apart + burst), "unloaded")
    assert len(loaded) == len(unloaded) == 30
    assert set(loaded["duration_ns"] // 10**6) == {90}
    assert set(unloaded["duration_ns"] // 10**6) == {50}


def test_whole_traces_are_taken():
    """Every span of a chosen request, and of no other."""
    table = shop(seed=1, requests=300)
    slow, fast, _ = split_cohorts(table, "fast")
    for part in (slow, fast):
        ids = set(part["trace_id"].astype("str"))
        assert len(part) == table["trace_id"].astype("str").isin(ids).sum()
        assert critical_path(part).counts["orphans"] == 0
    assert not set(slow["trace_id"].astype("str")) & set(fast["trace_id"].astype("str"))


def test_what_makes_the_tail_is_named():
    """A statement that is slow once in ten times, by much."""
    rng = np.random.default_rng(1)
    requests = []
    for at in range(600):
        took = 60.0 if rng.random() < 0.1 else 5.0
        begin, work = 200.0 * at, 10 * float(rng.lognormal(0, 0.2))
        query = S("shop", "SELECT stock", begin + work, begin + work + took, kind="client")
        requests.append(S("shop", "GET /", begin, begin + work + took + 1, kind="server", children=[query]))
    found = bottlenecks(spans(requests), baseline="fast")
    assert (found.answer, found.table["entity"].iloc[0]) == (NAMED, "shop: SELECT stock")
    assert found.refused[0].startswith("cohorts: the slowest requests of each entry operation")


def test_an_unknown_cohort_is_refused():
    """With those there are."""
    with pytest.raises(
        AnalysisError, match="there is no cohort 'slow'; a baseline is a span table, 'fast' or 'unloaded'"
    ):
        bottlenecks(shop(seed=1, requests=50), baseline="slow")


def test_no_spans():
    """Nothing is in either."""
    table = shop(seed=1, requests=2).head(0)
    assert [len(part) for part in split_cohorts(table, "unloaded")[:2]] == [0, 0]
