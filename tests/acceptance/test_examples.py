"""Promises 1 and 2 on other people's stacks: applications without a line of ours, attached.

Customers of the same names do the same, some as real users and some marked, at the same time. Real users get
what they got without perflab; marked ones get the same from the shadow; each side holds its own work only.

An example is a folder with an application, how it is set up and served, and what a customer does.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests

from perflab.cli.attach import attached_environment
from perflab.config import Secret, Store, Target
from perflab.demo.scratch import scratch_directory
from perflab.demo.stores import PostgresServer
from perflab.shadow.control import ControlPublisher, LiveRun
from perflab.shadow.mark import RunKey, mint

EXAMPLES = Path(__file__).parents[1] / "shadow" / "examples"
SHADOW_IDS = 1_000_000
"""Where the shadow's sequences begin."""
CUSTOMERS = ("ada", "bob", "eve")
Answer = tuple[int, Any]


class Customer:
    """Somebody with a browser; marked or not."""

    def __init__(self, name: str, port: int, run_key: RunKey | None = None) -> None:
        self.name = name
        self._address = f"http://127.0.0.1:{port}"
        self._run_key = run_key
        self._browser = requests.Session()
        self._browser.trust_env = False
        self.answers: list[Answer] = []

    def asks(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request and return the answer's body; keep it."""
        headers = {}
        if self._run_key is not None:
            headers = mint(self._run_key, secrets.randbits(64)).headers(secrets.randbits(63) + 1)
        sent = {"data": body} if isinstance(body, str) else {"json": body}
        answer = self._browser.request(method, self._address + path, headers=headers, timeout=20, **sent)
        is_json = answer.headers.get("content-type", "").startswith("application/json")
        said = answer.json() if is_json and answer.content else answer.text  # a 204 has a type, but no body
        self.answers.append((answer.status_code, said))
        return said

    def told(self) -> list[Answer]:
        """Return all answers, without the numbers the database gave."""

        def plain(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: "a number" if key == "id" else plain(item) for key, item in value.items()}
            return [plain(item) for item in value] if isinstance(value, list) else value

        return [(status, plain(said)) for status, said in self.answers]

    def ids(self) -> set[int]:
        """Return the ids in all answers."""
        return set(_ids(self.answers))


def _ids(value: Any) -> Iterator[int]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from [item] if key == "id" else _ids(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _ids(item)


def buy_in_django(customer: Customer) -> None:
    """Sign up, import, order, pay, and look at it all."""
    ask, name = customer.asks, customer.name
    ask("POST", "/signup/", {"name": name, "password": "secret"})
    ask("POST", "/signup/", {"name": name, "password": "again"})
    stock = [("tea", 5, "Tea"), ("cup", 2, "Cup"), ("pot", 0, "Pot (optional)"), ("bag", 9, "Bag")]
    rows = [{"sku": f"{name}-{sku}", "name": text, "price": "2.50", "stock": n} for sku, n, text in stock]
    ask("POST", "/products/import/", rows)
    for _ in range(2):
        ask("GET", f"/catalogue/{name}/")
    first = ask("POST", "/orders/", {f"{name}-tea": 2, f"{name}-pot": 1, f"{name}-bag": 3})
    ask("POST", "/orders/", {f"{name}-tea": 1, f"{name}-cup": 3})
    ask("POST", f"/orders/{first['id']}/pay/")
    ask("POST", f"/orders/{first['id']}/pay/")
    for path in (f"/orders/{first['id']}/", "/report/", "/export/", "/me/", "/me/", "/nowhere/"):
        ask("GET", path)
    ask("POST", "/login/", {"name": name, "password": "secret"})
    ask("POST", "/login/", {"name": name, "password": "wrong"})


def buy_in_flask(customer: Customer) -> None:
    """Import, order, pay, have it shipped, and look at it all."""
    ask, name = customer.asks, customer.name
    stock = {"tea": 5, "cup": 2, "bag": 9}
    ask(
        "POST",
        "/products/import",
        [{"sku": f"{name}-{sku}", "price": 3, "stock": n} for sku, n in stock.items()],
    )
    lines = {f"{name}-tea": 2, f"{name}-bag": 3}
    first = ask("POST", "/orders", {"customer": name, "lines": lines, "receipt": "now"})
    ask("POST", "/orders", {"customer": name, "lines": {f"{name}-tea": 1, f"{name}-cup": 3}})
    ask("POST", f"/orders/{first['id']}/payment")
    ask("POST", f"/orders/{first['id']}/shipment")
    for path in (f"/orders/{first['id']}", f"/products/{name}", "/orders/999999999"):
        ask("GET", path)


def buy_in_fastapi(customer: Customer) -> None:
    """Import, order, count, cancel, and look at it all."""
    ask, name = customer.asks, customer.name
    ask("POST", "/products/import", "".join(f"{name}-{sku},3,{n}\n" for sku, n in (("tea", 5), ("cup", 2))))
    order = {"customer": name, "lines": [{"product": f"{name}-tea", "quantity": 2}]}
    first = ask("POST", "/orders", order)
    ask("POST", "/orders", order | {"lines": [*order["lines"], {"product": f"{name}-cup", "quantity": 3}]})
    ask("POST", f"/products/{name}-cup/stock?amount=4")
    for path in (f"/orders/{first['id']}", "/orders/999999999"):
        ask("GET", path)
    second = ask("POST", "/orders", order)
    ask("DELETE", f"/orders/{second['id']}")
    ask("DELETE", "/orders/999999999")


@dataclass(frozen=True)
class Example:
    """An application, and what a customer does with it.

    Parameters
    ----------
    folder : str
        Below the examples.
    setup : tuple of str
        What makes its tables, for ``python``.
    serve : tuple of str
        What serves it, for ``python``; ``{port}`` is filled in.
    buys : callable
        What a customer does.
    tables : tuple of str
        What is written to.
    environment : dict
        More of it; where the database is comes as ``DATABASE_URL``.
    numbered : tuple of str
        Those of the tables that have a column ``id`` and no rows to begin with; all, when left out.
    background : str
        Where it tells which of production's rows its own threads have heard of.
    """

    folder: str
    setup: tuple[str, ...]
    serve: tuple[str, ...]
    buys: Callable[[Customer], None]
    tables: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    numbered: tuple[str, ...] = ()
    background: str = ""


LOAD_SCHEMA = """
import os, pathlib, psycopg
with psycopg.connect(os.environ["DATABASE_URL"]) as session:
    session.execute(pathlib.Path("schema.sql").read_text())
"""
DJANGO_TABLES = ("django_session", "auth_user", "store_product", "store_order", "store_line", "store_event")
CASES = {
    "django under waitress": Example(
        "django_psycopg3",
        ("manage.py", "migrate", "-v0"),
        ("-m", "waitress", "--listen=127.0.0.1:{port}", "shopsite.wsgi:application"),
        buy_in_django,
        DJANGO_TABLES,
        {"ATOMIC_REQUESTS": "1"},
        numbered=DJANGO_TABLES[1:],
    ),
    "django under uvicorn, pooled": Example(
        "django_psycopg3",
        ("manage.py", "migrate", "-v0"),
        ("-m", "uvicorn", "--port={port}", "--log-level=critical", "shopsite.asgi:application"),
        buy_in_django,
        DJANGO_TABLES,
        {"DATABASE_POOL": "1"},
        numbered=DJANGO_TABLES[1:],
    ),
    "fastapi, asyncpg": Example(
        "fastapi_asyncpg",
        ("-c", LOAD_SCHEMA),
        ("-m", "uvicorn", "--port={port}", "--log-level=critical", "shop:app"),
        buy_in_fastapi,
        ("product", "customer_order", "order_item", "audit_line"),
        numbered=("customer_order", "audit_line"),
    ),
    "flask, sqlalchemy, psycopg2": Example(
        "flask_sqlalchemy_psycopg2",
        ("-m", "orders.schema"),
        ("-m", "waitress", "--listen=127.0.0.1:{port}", "orders.app:app"),
        buy_in_flask,
        ("product", "orders", "line", "receipt"),
        background="/heard",
    ),
}


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """Start a PostgreSQL for all examples."""
    with scratch_directory() as directory, PostgresServer(directory.path / "postgres") as server:
        yield server


class Stage:
    """Three databases of an example, without perflab, production and shadow, and a live run."""

    def __init__(self, example: Example, postgres: PostgresServer, directory: Path, stack: ExitStack) -> None:
        self._example, self._postgres, self._stack = example, postgres, stack
        self._name = f"x{secrets.token_hex(4)}"
        self.urls = {side: self._make_database(side) for side in ("plain", "production", "shadow")}
        (directory / "key").write_text("a control key of the tests")
        (directory / "shadow").write_text(self.urls["shadow"])
        key = Secret(file=str(directory / "key"))
        self.target = Target(
            addresses=("127.0.0.1:9",),
            control=str(directory / "control.json"),
            control_key=key,
            collector="127.0.0.1:9",
            stores=(
                Store(
                    "shop",
                    "postgresql",
                    f"postgresql://127.0.0.1:{postgres.port}/{self._name}_production",
                    Secret(file=str(directory / "shadow")),
                ),
            ),
        )
        publisher = stack.enter_context(ControlPublisher(directory / "control.json", key.read().encode()))
        tag = secrets.randbelow(0xFFFE) + 1
        self.run_key = publisher.add(LiveRun(tag, "run", "key", int(time.time()) + 600))

    def _make_database(self, side: str) -> str:
        """Make one side's database: set up once, copied twice; the shadow with its own owner and numbers."""
        app, name = f"{self._name}_app", f"{self._name}_{side}"
        owner = name if side == "shadow" else app
        plain = "" if side == "plain" else f"TEMPLATE {self._name}_plain"
        with psycopg.connect(self._postgres.admin_dsn, autocommit=True) as session:
            if side != "production":
                session.execute(f"CREATE ROLE {owner} LOGIN PASSWORD 'secret'")
            session.execute(f"CREATE DATABASE {name} {plain}")
            session.execute(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")
            session.execute(f"GRANT ALL ON DATABASE {name} TO {owner}")
        with psycopg.connect(self._postgres.admin_dsn.rpartition("/")[0] + f"/{name}") as session:
            session.execute(f"GRANT ALL ON SCHEMA public TO {owner}")
            if side == "shadow":
                number = "format('%I.%I', schemaname, sequencename)"
                session.execute(f"SELECT setval({number}, {SHADOW_IDS}) FROM pg_sequences")
                session.execute(f"REASSIGN OWNED BY {app} TO {owner}")
        url = self._postgres.dsn(name, owner, "secret")
        if side == "plain":
            subprocess.run(
                [sys.executable, *self._example.setup],
                cwd=EXAMPLES / self._example.folder,
                env=self._environment(os.environ, url),
                check=True,
            )
        return url

    def _environment(self, environment: Any, url: str) -> dict[str, str]:
        folder = str(EXAMPLES / self._example.folder)
        path = os.pathsep.join(filter(None, [environment.get("PYTHONPATH", ""), folder]))
        return {**environment, **self._example.environment, "DATABASE_URL": url, "PYTHONPATH": path}

    def serve(self, *, attached: bool) -> int:
        """Serve the example, on production if it is attached, and return its port."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = int(free.getsockname()[1])
        environment = attached_environment(self.target, "shop") if attached else os.environ
        process = subprocess.Popen(
            [sys.executable, *(word.format(port=port) for word in self._example.serve)],
            cwd=EXAMPLES / self._example.folder,
            env=self._environment(environment, self.urls["production" if attached else "plain"]),
        )
        self._stack.callback(process.wait, 20)
        self._stack.callback(process.terminate)
        deadline = time.monotonic() + 30
        while not _listens(port):
            assert process.poll() is None, "it ended"
            assert time.monotonic() < deadline, "it does not listen"
            time.sleep(0.05)
        return port

    def rows(self, side: str) -> dict[str, int]:
        """Count what is in an example's tables."""
        with psycopg.connect(self.urls[side]) as session:
            counts = {}
            for table in self._example.tables:
                row = session.execute(f"SELECT count(*) FROM {table}").fetchone()
                counts[table] = row[0] if row else -1
            return counts

    def least_and_greatest(self, side: str, table: str) -> tuple[int, int]:
        """Return a table's least and greatest id."""
        with psycopg.connect(self.urls[side]) as session:
            row = session.execute(f"SELECT min(id), max(id) FROM {table}").fetchone()
            assert row is not None
            return row[0], row[1]


def _listens(port: int) -> bool:
    with socket.socket() as trying:
        return trying.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def staged(example: Example, postgres: PostgresServer, directory: Path) -> Iterator[Stage]:
    """Set an example's databases up; what is served ends with it."""
    with ExitStack() as stack:
        yield Stage(example, postgres, directory, stack)


def all_buy(customers: list[Customer], example: Example) -> None:
    """Have all customers do what they do, at the same time."""
    threads = [threading.Thread(target=example.buys, args=(customer,)) for customer in customers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("case", CASES)
def test_an_application_is_isolated_as_it_is(case: str, postgres: PostgresServer, tmp_path: Path) -> None:
    """Marked customers leave rows in the shadow only, real ones in production only; all get right answers."""
    example = CASES[case]
    with staged(example, postgres, tmp_path) as stage:
        # GIVEN what customers are answered without perflab
        port = stage.serve(attached=False)
        before = [Customer(name, port) for name in CUSTOMERS]
        all_buy(before, example)
        expected = {customer.name: customer.told() for customer in before}
        # WHEN real and marked customers of the same names buy at once from the attached application
        port = stage.serve(attached=True)
        real = [Customer(name, port) for name in CUSTOMERS]
        marked = [Customer(name, port, stage.run_key) for name in CUSTOMERS]
        all_buy([*real, *marked], example)
        # THEN all of them are answered the same
        for customer in (*real, *marked):
            assert customer.told() == expected[customer.name]
        # AND no answer has an id of the other side
        assert all(number < SHADOW_IDS for customer in real for number in customer.ids())
        assert all(number > SHADOW_IDS for customer in marked for number in customer.ids())
        # AND each side holds its own work, all of it, and nothing else
        deadline = time.monotonic() + 20  # some of it is done after the answer
        while not stage.rows("production") == stage.rows("shadow") == stage.rows("plain"):
            assert time.monotonic() < deadline, [stage.rows(side) for side in stage.urls]
            time.sleep(0.05)
        for table in example.numbered or example.tables:
            assert stage.least_and_greatest("production", table)[1] < SHADOW_IDS
            assert stage.least_and_greatest("shadow", table)[0] > SHADOW_IDS
        # AND what the application does in the background for production, it did for real customers
        if example.background:
            somebody = Customer("somebody", port)
            somebody.asks("GET", example.background)
            assert somebody.ids() == {
                answer["id"]
                for customer in real
                for status, answer in customer.answers
                if isinstance(answer, dict) and "told" in answer
            }
