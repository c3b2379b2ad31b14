"""A FastAPI service on asyncpg, with not a line of ours in it, attached under uvicorn."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from attached_service import wait_for
from two_sides import Sides, TestRun

from perflab.cli.attach import attached_environment

SHADOW_TESTS = Path(__file__).parents[1]
EXAMPLE = SHADOW_TESTS / "examples" / "fastapi_asyncpg"
SERVE = SHADOW_TESTS / "services" / "serve.py"
TABLES = {
    "product": "SELECT name, price_cents, stock FROM product ORDER BY name",
    "orders": "SELECT customer, status FROM customer_order ORDER BY customer",
    "items": "SELECT name, quantity FROM order_item JOIN product ON product.id = product_id ORDER BY 1, 2",
    "audit": "SELECT what, by_login FROM audit_line ORDER BY what",
}
OURS = ("perflab", "opentelemetry", "shadow", "mark")


@pytest.fixture(scope="module")
def shop(sides: Sides, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Load the service's tables into both databases, start it attached, and return its address."""
    schema = (EXAMPLE / "schema.sql").read_text()
    for dsn in (sides.app, sides.postgres.dsn(sides.shadow_database, sides.shadow_role, "secret")):
        with psycopg.connect(dsn) as session:
            session.execute(schema)
    environment = attached_environment(sides.target, "shop")
    environment["PYTHONPATH"] = os.pathsep.join([environment["PYTHONPATH"], str(EXAMPLE)])
    environment["DATABASE_URL"] = sides.app
    process = subprocess.Popen(
        [sys.executable, str(SERVE), "uvicorn", "shop:app"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()
        for side in ("production", "shadow"):
            sides.query(side, "DROP TABLE product, customer_order, order_item, audit_line CASCADE")
            sides.query(side, "DROP FUNCTION announce_order")


@pytest.fixture
def ask(shop: str, run: TestRun) -> Iterator[Callable[..., httpx.Response]]:
    """``ask(is_marked, method, path)`` sends a request of the run, or of a real user."""
    with httpx.Client(base_url=shop, timeout=20) as client:

        def send(is_marked: bool, method: str, path: str, **more: Any) -> httpx.Response:
            headers = {}
            if is_marked:
                mark = run.mark()
                headers = {
                    "traceparent": f"00-{int(mark['trace_id']):032x}-00000000000000ab-01",
                    "tracestate": f"perflab={mark['token']}",
                }
            return client.request(method, path, headers=headers, **more)

        wait_for(lambda: send(True, "GET", "/report").status_code == 200, "the run is live in the service")
        yield send


def rows(sides: Sides, side: str) -> dict[str, list[Any]]:
    return {name: sides.query(side, query) for name, query in TABLES.items()}


def work(ask: Callable[..., httpx.Response], is_marked: bool, who: str) -> list[Any]:
    """Use every endpoint once, and return what a user sees of it."""
    lines = [{"product": "lamp", "quantity": 2}, {"product": "chair", "quantity": 1}]
    placed = ask(is_marked, "POST", "/orders", json={"customer": who, "lines": lines})
    refused = ask(
        is_marked, "POST", "/orders", json={"customer": who, "lines": [{"product": "rug", "quantity": 9}]}
    )
    cancelled = ask(is_marked, "POST", "/orders", json={"customer": f"{who} again", "lines": lines})
    answers = [
        placed,
        refused,
        cancelled,
        ask(is_marked, "GET", f"/orders/{placed.json()['id']}"),
        ask(is_marked, "DELETE", f"/orders/{cancelled.json()['id']}"),
        ask(is_marked, "DELETE", "/orders/999999"),
        ask(is_marked, "POST", "/products/import", content=f"desk {who},30000,5\nlamp,5000,70\n"),
        ask(is_marked, "POST", "/products/rug/stock", params={"amount": 7}),
        ask(is_marked, "GET", "/report"),
    ]
    return [[answer.status_code, _without_ids(answer)] for answer in answers]


def _without_ids(answer: httpx.Response) -> Any:
    said = answer.json() if answer.content else None
    return {key: value for key, value in said.items() if key != "id"} if isinstance(said, dict) else said


def test_a_run_leaves_production_as_it_was(
    ask: Callable[..., httpx.Response], sides: Sides, shop: str
) -> None:
    """Every endpoint answers marked work as it answers real users, on the other database."""
    # Given: a real user's work
    seen = work(ask, False, "real user")
    wait_for(lambda: len(rows(sides, "production")["audit"]) == 3, "the background tasks are done")
    before = rows(sides, "production")
    assert [code for code, _ in seen] == [201, 409, 201, 200, 204, 404, 200, 200, 200]
    # When
    seen_by_run = work(ask, True, "real user")
    wait_for(lambda: len(rows(sides, "shadow")["audit"]) == 3, "the background tasks are done")
    # Then: the same is seen by both
    assert seen_by_run == seen
    # And: production is untouched, and the shadow has what production has
    assert rows(sides, "production") == before
    there = rows(sides, "shadow")
    assert {login for _, login in there["audit"]} == {sides.shadow_role}
    assert {login for _, login in before["audit"]} == {"both_app"}
    for table in ("product", "orders", "items"):
        assert there[table] == before[table]


def test_the_feed_hears_real_users_only(ask: Callable[..., httpx.Response], sides: Sides) -> None:
    """NOTIFY of marked orders ends in the shadow database, where nobody listens."""
    order = {"lines": [{"product": "lamp", "quantity": 1}]}
    assert ask(True, "POST", "/orders", json={"customer": "of the run", **order}).status_code == 201
    assert ask(False, "POST", "/orders", json={"customer": "of a user", **order}).status_code == 201

    def heard() -> str:
        return " ".join(ask(False, "GET", "/feed").json())

    wait_for(lambda: "of a user" in heard(), "the feed hears the user's order")
    assert "of the run" not in heard()


def test_there_is_not_a_line_of_ours_in_it() -> None:
    """The example neither imports nor names what makes its run safe."""
    for path in sorted(EXAMPLE.iterdir()):
        if path.is_file():
            words = path.read_text().lower()
            assert not [word for word in OURS if word in words], path
