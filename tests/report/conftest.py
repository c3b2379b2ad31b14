"""A run as the demo would leave one: a shop under a ramp whose stock query is slow under load."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perflab.run import Run
from perflab.testing import EPOCH_NS, S, spans
from perflab.trace.store import write_spans
from perflab.units import NS_PER_S

SECONDS = 20


def order_trace(rng: random.Random, at_ms: float, load: float, strange: str = "") -> S:
    """Return one order: gateway -> catalogue (cache) and order -> stock (slow query), payment -> bank."""

    def lasting(mean: float) -> float:
        return mean * rng.lognormvariate(0, 0.35)

    cache, query, bank, own = lasting(0.8), lasting(9 + 26 * load), lasting(7), lasting(1.5)
    t = at_ms + 1.2
    look = S(
        "catalogue",
        "GET /products",
        t + 0.6,
        t + 1.4 + cache,
        kind="server",
        children=[
            S(
                "catalogue",
                "GET product",
                t + 0.8,
                t + 0.8 + cache,
                kind="client",
                attributes={"db.system.name": "redis", "server.address": "127.0.0.1"},
            )
        ],
    )
    browse = S("gateway", "GET catalogue", t, t + 2.0 + cache, kind="client", children=[look])
    t = t + 2.2 + cache
    reserve = S(
        "stock",
        "POST /reserve",
        t + 2.0,
        t + 3.0 + query,
        kind="server",
        children=[
            S(
                "stock",
                "SELECT stock",
                t + 2.3,
                t + 2.3 + query,
                kind="client",
                attributes={"db.system.name": "postgresql", "db.namespace": "shop_shadow"},
            )
        ],
    )
    failed = rng.random() < 0.02
    pay = S(
        "payment",
        "POST /pay",
        t + 4.6 + query,
        t + 6.0 + query + bank,
        kind="server",
        status="error" if failed else "unset",
        children=[
            S(
                "payment",
                "POST bank",
                t + 5.0 + query,
                t + 5.0 + query + bank,
                kind="client",
                status="error" if failed else "unset",
                attributes={"peer.service": "bank"},
            )
        ],
    )
    end = t + 7 + query + bank + own
    order = S(
        "order",
        f"POST /orders{strange}",
        t + 0.9,
        end - 0.6,
        kind="server",
        children=[
            S("order", "POST stock", t + 1.4, t + 3.5 + query, kind="client", children=[reserve]),
            S(
                "order",
                "POST payment",
                t + 4.0 + query,
                t + 6.4 + query + bank,
                kind="client",
                children=[pay],
            ),
            S(
                "order",
                "send receipts",
                end - 1.2,
                end - 0.9,
                kind="producer",
                children=[S("worker", "process receipts", end + 4, end + 9, kind="consumer")],
            ),
        ],
    )
    call = S("gateway", "POST order", t, end, kind="client", children=[order])
    answer = S("gateway", "POST /checkout", at_ms + 0.5, end + 0.8, kind="server", children=[browse, call])
    return S(
        "perflab",
        "place an order",
        at_ms + 0.02,
        end + 1.4,
        kind="client",
        shadow=True,
        scheduled_ms=at_ms,
        outcome="check_failed" if failed else "answered",
        children=[answer],
    )


def plausible_spans(strange: str = "", per_s: int = 12) -> Any:
    """Return some twenty seconds of a ramp."""
    rng = random.Random(7)
    trees = []
    at_ms = 0.0
    while at_ms < SECONDS * 1000:
        load = at_ms / (SECONDS * 1000)
        trees.append(order_trace(rng, at_ms, load, strange))
        if rng.random() < 0.01:
            trees.append(
                S(
                    "perflab",
                    "place an order",
                    at_ms,
                    at_ms + 1000,
                    kind="client",
                    shadow=True,
                    scheduled_ms=at_ms,
                    outcome="timeout",
                    status="error",
                )
            )
        at_ms += rng.expovariate(per_s * (0.3 + 1.4 * load)) * 1000
    return spans(trees)


def plausible_info() -> dict[str, Any]:
    """Return a ``run.json`` with every key."""
    started = EPOCH_NS
    return {
        "scenario": "checkout",
        "target": "shop-demo",
        "verdict": "passed",
        "reason": "",
        "started_ns": started,
        "ended_ns": started + SECONDS * NS_PER_S,
        "phases": [{"name": "ramp", "start_ns": started, "end_ns": started + SECONDS * NS_PER_S}],
        "requests": {
            "offered": 242,
            "sent": 240,
            "answered": 238,
            "late": 1,
            "missed": 2,
            "errors": 6,
            "error_outcomes": {"timeout": 2, "check_failed": 4},
        },
        "thresholds": [
            {"endpoint": "place an order", "metric": "p99", "limit": "800ms", "value": "96ms", "passed": True}
        ],
        "guards": [
            {"of": "real users", "metric": "p99", "limit": "250ms", "worst": "41ms", "tripped": False}
        ],
        "real_users": {
            "before": {"n": 300, "p50_ms": 8.1, "p99_ms": 31.0, "error_ratio": 0.0},
            "during": {"n": 410, "p50_ms": 8.4, "p99_ms": 33.5, "error_ratio": 0.0},
            "after": {"n": 120, "p50_ms": 8.0, "p99_ms": 30.2, "error_ratio": 0.0},
        },
        "services": [{"name": "gateway", "state": "ok"}, {"name": "stock", "state": "ok"}],
        "holes": [],
        "versions": {"perflab": "0.1.0"},
    }


def plausible_isolation() -> dict[str, Any]:
    """Return an ``isolation.json`` with one store proven and one not."""
    return {
        "stores": [
            {
                "name": "shop (PostgreSQL)",
                "kind": "postgresql",
                "proven": True,
                "login_refused": {"tried": 3, "refused": 3, "how": "no CONNECT"},
                "marked_sessions": {"on_shadow": 14, "elsewhere": 0},
                "canaries": {"sent": 240, "hits": 0},
                "changes": {"seen": 812, "attributed": 812, "unattributed": 0},
                "not_checked": [],
            },
            {
                "name": "cache (Redis)",
                "kind": "redis",
                "proven": False,
                "login_refused": {"tried": 2, "refused": 2, "how": "ACL"},
                "marked_sessions": {"on_shadow": 6, "elsewhere": 0},
                "canaries": {"sent": 240, "hits": 0},
                "changes": {"seen": 90, "attributed": 88, "unattributed": 2},
                "not_checked": ["two changes of expired keys could not be attributed"],
            },
        ],
        "seen": 2,
        "proven": 1,
        "leaks": [],
        "refusals": [],
        "outbound": [{"name": "bank", "action": "stubbed", "marked_calls": 240, "live_hits": 0}],
        "real_user_writes": {"acknowledged": 118, "missing": 0},
    }


def write_run(folder: Path, *, strange: str = "", info: dict[str, Any] | None = None) -> Run:
    """Write a plausible run directory."""
    folder.mkdir(parents=True)
    run = Run(folder)
    run.write_info(plausible_info() if info is None else info)
    run.write_isolation(plausible_isolation())
    run.event("started")
    write_spans(plausible_spans(strange), folder / "spans" / "part-0.parquet")
    return run


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a plausible run's directory."""
    return write_run(tmp_path_factory.mktemp("runs") / "20261123T120000-demo-ab12").path


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Run]:
    """Return what writes a plausible run's directory: ``make_run(folder, strange=..., info=...)``."""
    return write_run
