"""Entities that only one side has: named where that is no chance."""

from __future__ import annotations

import pytest

from perflab.analysis.criticalpath import CriticalPath, critical_path
from perflab.analysis.structure import changed_structure
from perflab.testing import S, spans


def path(size: int, *, rare: int = 0, callee: str = "") -> CriticalPath:
    """Return ``size`` requests, ``rare`` of them with a call off the path, all with one to a callee."""
    trees = []
    for number in range(size):
        at = 100 * number
        inside = [S("shop", "audit", at + 1, at + 2)] if number < rare else []
        if callee:
            server = S(callee, "GET /", at + 1, at + 5, "server")
            inside.append(S("shop", f"GET {callee}", at + 1, at + 6, "client", children=[server]))
        inside.append(S("shop", "work", at + 1, at + 9))
        trees.append(S("shop", "GET /", at, at + 10, "server", children=inside))
    return critical_path(spans(trees))


def test_an_edge_and_its_callee_appear():
    """Though no request waits for them."""
    found = changed_structure(path(50), path(40, callee="stock")).set_index("entity")
    assert found[["kind", "calls_before", "calls_after", "verdict"]].to_dict("index") == {
        "shop -> stock": {"kind": "edge", "calls_before": 0, "calls_after": 40, "verdict": "appeared"},
        "stock: GET /": {"kind": "operation", "calls_before": 0, "calls_after": 40, "verdict": "appeared"},
    }
    assert found["evidence"].iloc[0] == "appeared: in 40 of 40 requests after, in none of 50 before"


def test_what_is_rare_may_be_missing_by_chance():
    """Two requests of 50 against none of 50: 3 entities times 1/4. Eight: 3/256."""
    found = changed_structure(path(50, rare=2), path(50))
    assert found[["entity", "verdict"]].values.tolist() == [["shop: audit", "cannot say"]]
    assert found["p_value"].iloc[0] == pytest.approx(3 / 4)
    assert found["evidence"].iloc[0].endswith("in none of 50 after, which may be chance")
    found = changed_structure(path(50, rare=8), path(50))
    assert (found["verdict"].iloc[0], found["p_value"].iloc[0]) == ("vanished", pytest.approx(3 / 256))


def test_no_change_is_no_row():
    """Nor are two empty sides."""
    assert len(changed_structure(path(20, rare=3), path(30, rare=1))) == 0
    assert len(changed_structure(path(0), path(0))) == 0
