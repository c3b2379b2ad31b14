"""The shop by itself: it sells, pays and ships; its hotspot is there and can be mended."""

from __future__ import annotations

import ast
import asyncio
import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import redis
from running_shop import RunningShop

import perflab.demo
from perflab.demo.shop.database import MOVEMENTS, create_database, set_up
from perflab.demo.shop.services import SERVICES, plan
from perflab.demo.spawn import wait_until
from perflab.demo.stores import PostgresServer, RedisServer


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name.split(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.level == 0:
        return [str(node.module).split(".")[0]]
    return []


def test_an_order_is_placed_paid_and_shipped(shop: RunningShop, customer: httpx.Client) -> None:
    """A customer looks, fills a cart, orders and pays; every store holds its part, and the worker ships."""
    # Given
    page = customer.get("/products/42").json()
    assert page["product_id"] == 42
    assert page["level"] > 1000
    assert len(page["recommendations"]) == 4

    # When
    added = customer.post("/carts/ada/items", json={"product_id": 42, "quantity": 2, "note": "cart-note"})
    lines = [{"product_id": 42, "quantity": 2}, {"product_id": 7, "quantity": 1}]
    placed = customer.post("/orders", json={"user": "ada", "lines": lines, "note": "order-note"})
    order = placed.json()["order_id"]
    paid = customer.post("/payments", json={"order_id": order, "reference": "paid-note"})

    # Then
    assert [answer.status_code for answer in (added, placed, paid)] == [201, 201, 201]
    assert wait_until(lambda: customer.get(f"/orders/{order}").json()["status"] == "shipped", 10)
    assert customer.get(f"/orders/{order}").json()["lines"] == lines
    assert customer.get("/carts/ada").json()["items"] == [
        {"product_id": 42, "quantity": 2, "note": "cart-note"}
    ]
    with psycopg.connect(shop.dsn) as connection:
        held = {
            "orders": "SELECT note FROM orders WHERE order_id = %s",
            "payment": "SELECT reference FROM payment WHERE order_id = %s",
            "shipment": "SELECT note FROM shipment WHERE order_id = %s",
        }
        found = {table: connection.execute(query, [order]).fetchall() for table, query in held.items()}
        moved = connection.execute(
            "SELECT product_id, quantity FROM stock_movement WHERE reference = 'order-note' "
            "ORDER BY product_id"
        ).fetchall()
        prices = dict(connection.execute("SELECT product_id, price_cents FROM product").fetchall())
    assert found == {"orders": [("order-note",)], "payment": [("paid-note",)], "shipment": [("order-note",)]}
    assert moved == [(7, 1), (42, 2)]
    assert placed.json()["total_cents"] == 2 * prices[42] + prices[7]
    assert "paid-note" in httpx.get(f"{shop.bank}/charges").json()["references"]
    with redis.Redis.from_url(shop.redis_url, decode_responses=True) as store:
        assert json.loads(str(store.get("product:42")))["product_id"] == 42
        assert json.loads(str(store.hget("cart:ada", "42")))["note"] == "cart-note"
        assert store.llen("fulfilment") == 0


def test_what_cannot_be_done_is_refused(customer: httpx.Client) -> None:
    """Unknown things are 404, what is not in stock 409, malformed bodies 422; each says why."""
    # Given
    too_many = {"user": "ada", "lines": [{"product_id": 1, "quantity": 2_000_000_000}]}
    asked: list[tuple[str, str, dict[str, Any] | None, int]] = [
        ("GET", "/products/100000", None, 404),
        ("GET", "/orders/999999999", None, 404),
        ("POST", "/payments", {"order_id": 999999999}, 404),
        ("POST", "/orders", too_many, 409),
        ("POST", "/orders", {"user": "ada", "lines": []}, 422),
    ]

    # When
    answers = [customer.request(method, path, json=body) for method, path, body, _ in asked]

    # Then
    assert [answer.status_code for answer in answers] == [status for *_, status in asked]
    assert all(answer.json() for answer in answers)


def test_a_failure_behind_the_gateway_is_not_hidden(shop: RunningShop, customer: httpx.Client) -> None:
    """When a service cannot do its work the customer gets a 5xx with a JSON body, and no order is written."""
    # Given
    with psycopg.connect(shop.dsn) as connection:
        connection.execute("ALTER TABLE order_line RENAME TO order_line_away")

    # When
    try:
        answer = customer.post(
            "/orders", json={"user": "ada", "lines": [{"product_id": 1, "quantity": 1}], "note": "lost"}
        )
    finally:
        with psycopg.connect(shop.dsn) as connection:
            connection.execute("ALTER TABLE order_line_away RENAME TO order_line")

    # Then
    assert answer.status_code == 502
    assert "500" in answer.json()["error"]
    with psycopg.connect(shop.dsn) as connection:
        assert connection.execute("SELECT count(*) FROM orders WHERE note = 'lost'").fetchone() == (0,)


def test_the_services_login_owns_its_tables_and_no_more(
    shop: RunningShop, stores: tuple[PostgresServer, RedisServer]
) -> None:
    """The shop's logins of PostgreSQL and Redis are ordinary ones, and others cannot enter its database."""
    # Given
    postgres, _ = stores
    with psycopg.connect(postgres.admin_dsn, autocommit=True) as admin:
        admin.execute("CREATE ROLE stranger LOGIN PASSWORD 'stranger'")

    # When
    with psycopg.connect(shop.dsn) as connection:
        who = connection.execute(
            "SELECT rolsuper, rolcreatedb, rolreplication FROM pg_roles WHERE rolname = current_user"
        ).fetchone()
        owners = connection.execute(
            "SELECT DISTINCT tableowner = current_user FROM pg_tables WHERE schemaname = 'public'"
        ).fetchall()

    # Then
    assert who == (False, False, False)
    assert owners == [(True,)]
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        psycopg.connect(postgres.dsn("shop", "stranger", "stranger"))
    with (
        redis.Redis.from_url(shop.redis_url) as store,
        pytest.raises(redis.ResponseError, match="permissions"),
    ):
        store.flushall()


def test_the_hotspot_is_there_and_can_be_mended(stores: tuple[PostgresServer, RedisServer]) -> None:
    """The availability check takes at least three times longer without the index of SHOP_MENDED=1."""
    # Given
    postgres, _ = stores
    query = """
        SELECT product_id, sum(quantity) FROM stock_movement
        WHERE product_id = ANY(%s) AND moved_at > now() - interval '30 days' GROUP BY product_id
    """
    dsns = {mended: create_database(postgres.admin_dsn, *[f"shop_{mended}"] * 2) for mended in (False, True)}
    began = time.monotonic()
    for mended, dsn in dsns.items():
        set_up(dsn, mended=mended)
    set_up_s = (time.monotonic() - began) / 2

    # When
    taken: dict[bool, list[float]] = {False: [], True: []}
    sums: dict[bool, list[Any]] = {False: [], True: []}
    connections = {mended: psycopg.connect(dsn, autocommit=True) for mended, dsn in dsns.items()}
    for product in range(1, 26):
        for mended, connection in connections.items():
            began = time.perf_counter()
            sums[mended] += connection.execute(query, [[product]]).fetchall()
            taken[mended].append(time.perf_counter() - began)
    movements = connections[False].execute("SELECT count(*) FROM stock_movement").fetchone()
    for connection in connections.values():
        connection.close()

    # Then
    assert statistics.median(taken[False]) >= 3 * statistics.median(taken[True])
    assert sums[False] == sums[True]
    assert len(sums[False]) == 25
    assert movements == (MOVEMENTS,)
    assert set_up_s < 10


def test_the_shop_knows_nothing_of_perflab(shop: RunningShop) -> None:
    """No file of the demo imports OpenTelemetry or the rest of perflab, and no service loads the latter."""
    # Given
    home = Path(perflab.demo.__file__).parent
    written = {
        name
        for file in home.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        for name in imported(node)
    }
    text = """
import importlib, sys
for name in sys.argv[1:] + ["perflab.demo.realusers", "perflab.demo.check", "perflab.demo.stores"]:
    importlib.import_module(name)
print(*sys.modules)
"""
    names = [f"perflab.demo.shop.{service.name}" for service in SERVICES]
    settings = {name: value for service in shop.services.services for name, value in service.env.items()}
    env = {**os.environ, **settings}

    # When
    done = subprocess.run(
        [sys.executable, "-c", text, *names], env=env, capture_output=True, text=True, check=True
    )

    # Then
    # (libraries may well load OpenTelemetry by themselves: redis-py and FastAPI do where it is installed)
    loaded = done.stdout.split()
    assert {"perflab.demo.shop.order", "redis", "fastapi"} <= set(loaded)
    perflabs = [
        name for name in loaded if name.startswith("perflab.") and not name.startswith("perflab.demo")
    ]
    assert perflabs == []
    assert {"fastapi", "flask", "sqlalchemy", "redis", "httpx"} <= written
    assert not written & {"perflab", "opentelemetry"}


def test_the_gateways_limit_makes_others_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a limit of two the third request waits for one of the first two; health never waits."""
    # Given
    for name in ("CATALOGUE", "CART", "ORDER", "STOCK", "PAYMENT"):
        monkeypatch.setenv(f"SHOP_{name}_URL", "http://127.0.0.1:1")
    gateway = importlib.import_module("perflab.demo.shop.gateway")
    inside: list[str] = []
    done = asyncio.Event()

    async def slow(scope: dict[str, Any], receive: Any, send: Any) -> None:
        inside.append(scope["path"])
        await done.wait()

    async def visit() -> tuple[list[str], list[str]]:
        limited = gateway.Limit(slow, at_once=2)
        paths = ["/a", "/b", "/c", "/health"]
        async with asyncio.TaskGroup() as visitors:
            for path in paths:
                visitors.create_task(limited({"type": "http", "path": path}, None, None))
            for _ in range(10):
                await asyncio.sleep(0)
            before = list(inside)
            done.set()
        return before, inside

    # When
    before, after = asyncio.run(visit())

    # Then
    assert before == ["/a", "/b", "/health"]
    assert sorted(after) == ["/a", "/b", "/c", "/health"]


def test_a_plan_gives_each_service_what_it_reads() -> None:
    """Every service gets its settings and no others; what nobody reads and a missing port are refused."""
    # Given
    ports = {name: 7000 + number for number, name in enumerate(one.name for one in SERVICES)}

    # When
    plans = {
        one.name: one for one in plan(ports, "postgresql://x", "redis://x", extra={"SHOP_GATEWAY_LIMIT": "3"})
    }

    # Then
    assert len(plans) == 8
    assert plans["stock"].env == {"SHOP_DATABASE_URL": "postgresql://x"}
    assert plans["payment"].env["SHOP_BANK_URL"] == f"http://127.0.0.1:{ports['bank']}"
    assert plans["gateway"].env["SHOP_GATEWAY_LIMIT"] == "3"
    assert plans["worker"].port is None
    assert all("perflab.demo.shop" in " ".join(one.argv) for one in plans.values())
    with pytest.raises(ValueError, match="no service reads SHOP_LIMIT"):
        plan(ports, "postgresql://x", "redis://x", extra={"SHOP_LIMIT": "3"})
    with pytest.raises(ValueError, match="no port for cart"):
        plan({name: port for name, port in ports.items() if name != "cart"}, "postgresql://x", "redis://x")
