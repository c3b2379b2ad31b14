"""A shop of made-up spans: three entry operations, random times, delays planted where one likes.

Everything is sequential, so the exclusive time of an entity is what was drawn for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from perflab.testing import S, spans

SQL = {"db.system.name": "postgresql"}
REDIS = {"db.system.name": "redis"}

Node = tuple[str, str, str, float, list[Any], dict[str, Any]]


def call(caller: str, callee: str, route: str, gap_ms: float, own_ms: float, inside: list[Node]) -> Node:
    server: Node = (callee, route, "server", own_ms, inside, {})
    return (caller, f"POST {callee}", "client", gap_ms, [server], {})


def query(service: str, name: str, ms: float) -> Node:
    return (service, name, "client", ms, [], SQL)


def cached(service: str, name: str, ms: float) -> Node:
    return (service, name, "client", ms, [], REDIS)


FLAT: dict[str, tuple[float, list[Node]]] = {
    "browse": (
        0.6,
        [
            call("gateway", "catalogue", "GET /products", 1.5, 2, [
                cached("catalogue", "GET product", 1), query("catalogue", "SELECT product", 2)]),
            call("gateway", "cart", "GET /cart", 1.5, 1.5, [cached("cart", "HGETALL cart", 1)]),
        ],
    ),
    "order": (
        0.3,
        [
            call("gateway", "order", "POST /orders", 1.5, 2.5, [
                call("order", "stock", "POST /reserve", 1.5, 2, [
                    query("stock", "SELECT stock", 1.5), query("stock", "UPDATE stock", 1.5),
                    query("stock", "COMMIT", 1)]),
                query("order", "INSERT orders", 1.5), query("order", "COMMIT", 1)]),
        ],
    ),
    "pay": (
        0.1,
        [
            call("gateway", "payment", "POST /pay", 1.5, 2.5, [
                ("payment", "POST bank", "client", 3, [], {"server.address": "bank"}),
                query("payment", "INSERT payment", 1.5), query("payment", "COMMIT", 1)]),
        ],
    ),
}  # fmt: skip


def shop(
    seed: int,
    requests: int = 400,
    slow: Mapping[str, float] | None = None,
    *,
    per_s: float = 40,
    spread: float = 0.4,
) -> pd.DataFrame:
    """Return the spans of a run.

    Parameters
    ----------
    slow : mapping
        Entity -> ms added to each of its calls.
    spread : float
        Sigma of the lognormal factor on every time drawn.
    """
    rng = np.random.default_rng(seed)
    names = list(FLAT)
    weights = [FLAT[name][0] for name in names]
    at_ms = np.cumsum(rng.exponential(1000 / per_s, requests))
    trees = []
    for begin, name in zip(at_ms.tolist(), rng.choice(names, size=requests, p=weights).tolist(), strict=True):
        inside = call("perflab", "gateway", f"POST /{name}", 1.5, 2, FLAT[name][1])
        root = _grow(inside, begin, rng, slow or {}, spread)
        root.name, root.outcome, root.scheduled_ms, root.shadow = name, "answered", begin, True
        trees.append(root)
    return spans(trees)


def _grow(node: Node, begin: float, rng: np.random.Generator, slow: Mapping[str, float], spread: float) -> S:
    service, name, kind, own_ms, inside, attributes = node
    callee = next((child[0] for child in inside if child[2] == "server"), None)
    entity = f"{service} -> {callee}" if kind == "client" and callee else f"{service}: {name}"
    own = own_ms * float(rng.lognormal(0, spread)) + slow.get(entity, 0.0)
    piece = own / (len(inside) + 1)
    cursor = begin + piece
    children = []
    for child in inside:
        grown = _grow(child, cursor, rng, slow, spread)
        children.append(grown)
        cursor = grown.end_ms + piece
    return S(service, name, begin, cursor, kind, children, attributes=attributes, host=service)


def simple(at: float) -> S:
    """Return a request of 10 ms, 7 of them in one statement."""
    query = S("stock", "SELECT stock", at + 2, at + 9, kind="client", attributes=SQL)
    return S("stock", "GET /stock", at, at + 10, kind="server", children=[query])


def saturated(workers: int, service_ms: float, line_ms: float = 1.0, requests: int = 600) -> pd.DataFrame:
    """Return a ramp into a service with few workers: who comes when all are busy waits in the gap."""
    rng = np.random.default_rng(7)
    rate_per_ms = np.linspace(0.01, 0.1, requests)
    at = np.cumsum(rng.exponential(1, requests) / rate_per_ms)
    free = [0.0] * workers
    trees = []
    for begin in at.tolist():
        line = line_ms * float(rng.uniform(0.9, 1.1))
        took = service_ms * float(rng.uniform(0.8, 1.2))
        worker = free.index(min(free))
        start = max(begin + line, free[worker])
        free[worker] = end = start + took
        query = S("shop", "SELECT stock", start + 1, end - 1, "client", attributes=SQL)
        server = S("shop", "GET /", start, end, "server", children=[query])
        trees.append(S("web", "GET shop", begin, end + line, "client", children=[server]))
    return spans(trees)


def beside(first_ms: float, second_ms: float) -> pd.DataFrame:
    """Return 400 requests that make two calls, a and b, beside each other, and wait for the longer one."""
    rng = np.random.default_rng(int(first_ms))
    requests = []
    for at in range(0, 40_000, 100):
        first, second = (at + 2 + ms * float(rng.uniform(0.95, 1.05)) for ms in (first_ms, second_ms))
        calls = [S("shop", "a", at + 2, first, "client"), S("shop", "b", at + 2, second, "client")]
        requests.append(S("shop", "GET /", at, max(first, second) + 1, kind="server", children=calls))
    return spans(requests)
