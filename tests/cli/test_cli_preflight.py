"""perflab preflight: what it draws, from findings written by hand; tests/acceptance send real requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perflab import cli
from perflab.cli.preflight import drawing


def stop(service: str, name: str, mark: str = "carried", *calls: dict[str, Any]) -> dict[str, Any]:
    return {"service": service, "name": name, "kind": "server", "mark": mark, "calls": list(calls)}


FOUND = {
    "endpoints": [
        {
            "endpoint": "order", "outcome": "answered", "status": 201, "reason": "", "trace_id": "ab",
            "stops": stop("gateway", "POST /orders", "carried",
                          stop("gateway", "POST order", "carried", stop("order", "no work seen", "died")),
                          stop("gateway", "INSERT log", "refused")),
        },
        {"endpoint": "home", "outcome": "refused", "status": 0, "reason": "no", "trace_id": "cd",
         "stops": None},
    ],
    "services": [
        {"service": "gateway", "agent": "0.1.0", "processes": 2, "uncovered": ["pika"], "marks": {},
         "hooks": {"psycopg": {"state": "on", "version": "3.2", "reason": ""},
                   "redis": {"state": "failed", "version": "9", "reason": "too new"}}},
        {"service": "order", "agent": "", "processes": 0, "uncovered": [], "marks": {}, "hooks": {}},
    ],
    "stores": [{"store": "orders", "state": "covered", "calls": 3, "service": "gateway", "why": ""}],
    "holes": [{"name": "order: no agent", "accepted": False, "why": "it does not report"}],
    "notices": ["service 'gateway' runs agent 0.1.0; this is perflab 0.2.0"],
}  # fmt: skip


def test_everything_that_was_found_is_drawn():
    """Trees of the endpoints, then services, stores, holes and notes."""
    assert drawing(FOUND) == [
        "order: answered 201  trace ab",
        "  gateway: POST /orders  ●",
        "  ├─ gateway: POST order  ●",
        "  │  └─ order: no work seen  ✗ mark died here",
        "  └─ gateway: INSERT log  ▲ refused",
        "",
        "home: refused no  trace cd",
        "  ✗ no service shows any work for it: the mark died before the first one",
        "",
        "services",
        "  service  agent  processes  hooked       not hooked              not covered",
        "  gateway  0.1.0  2          psycopg 3.2  redis failed (too new)  pika",
        "  order    none   0",
        "",
        "stores and peers",
        "  store   state    accesses  service  why",
        "  orders  covered  3         gateway",
        "",
        "holes",
        "  name             accepted  why",
        "  order: no agent  NO        it does not report",
        "note: service 'gateway' runs agent 0.1.0; this is perflab 0.2.0",
    ]


def test_a_scenario_that_is_not_there_is_wrong_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Exit code 2, and its path."""
    assert cli.main(["preflight", str(tmp_path / "none.toml")]) == 2
    assert "none.toml" in capsys.readouterr().err
