"""Sides: their entries are named alike whatever the requests are, and both are measured alike."""

from __future__ import annotations

import pytest
from made_shop import shop

from perflab.analysis.latency import latency
from perflab.analysis.side import Side, measure_entity, measure_requests
from perflab.testing import S, spans


def test_entries_are_those_of_the_critical_path():
    """Endpoints of the load engine are named as operations of it."""
    side = Side.of(shop(1, 60))
    assert side.is_generated
    assert (
        side.entries
        == set(side.path.entries["entry"])
        == {f"perflab: {x}" for x in ("browse", "order", "pay")}
    )
    assert len(side.requests_of("all").row) == 60
    assert sum(len(side.requests_of(entry).row) for entry in side.entries) == 60
    assert len(side.requests_of("nowhere").row) == 0
    plain = Side.of(spans([S("shop", "GET /", 0, 10, "server")]))
    assert (plain.is_generated, plain.entries, plain.entities) == (False, {"shop: GET /"}, {"shop: GET /"})


def test_measures_are_those_of_the_tables():
    """p95 is that of `latency`, the share that of `critical_path`."""
    one, other = shop(1, 100), shop(2, 120)
    sides = Side.of(one), Side.of(other)
    found = measure_requests(*sides, "all", ("p95", "errors"))
    assert found["p95"].before.value == latency(one).overall["p95_ms"].iloc[0]
    assert found["p95"].after.value == latency(other).overall["p95_ms"].iloc[0]
    assert (found["p95"].unit, found["errors"].unit, found["errors"].after.value) == ("ms", "ratio", 0)
    entity = "stock: SELECT stock"
    shares = measure_entity(*sides, "all", entity)["share"]
    for side, drawn in zip(sides, (shares.before, shares.after), strict=True):
        row = side.path.table.set_index("entity").loc[entity]
        assert drawn.value == pytest.approx(row["share_ratio"])
    exclusive = measure_entity(*sides, "perflab: order", entity)["exclusive"]
    orders = int((sides[0].path.entries["entry"] == "perflab: order").sum())
    row = sides[0].path.table.set_index("entity").loc[entity]
    assert exclusive.before.value == pytest.approx(row["exclusive_ns"] / 1e6 / orders)
    assert measure_entity(*sides, "perflab: pay", entity)["exclusive"].after.value == 0
