"""A leak on a real server stops the run within two seconds, everywhere, and its evidence is kept."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from mariadb_server import MariaServer

from perflab.config import Secret, Store, Target
from perflab.demo.stores import PostgresServer
from perflab.load.record import Record
from perflab.load.watchdog import Watchdog
from perflab.run import Run
from perflab.shadow.audit import Audit
from perflab.shadow.control import ControlPublisher, ControlReader, LiveRun
from perflab.shadow.fleet import Fleet

KEY = b"control"
TRACE_ID = "0123456789abcdef0123456789abcdef"
STOPPED_WITHIN_S = 2.0
MakeSecret = Callable[[str], Secret]


@pytest.fixture
def shop(postgres: PostgresServer, make_database: Callable[[str], str], secret: MakeSecret) -> Production:
    """Make a PostgreSQL production that is watched."""
    url = make_database("CREATE TABLE orders (id serial PRIMARY KEY, note text, phone text)")
    place = f"postgresql://{postgres.host}:{postgres.port}/{url.rpartition('/')[2]}"
    shadow = secret(postgres.dsn("s", "s", "s"))

    def write(note: str) -> None:
        with psycopg.connect(url) as session:
            session.execute("INSERT INTO orders (note, phone) VALUES (%s, '+49 170 5550100')", (note,))

    return Production(Store("shop", "postgresql", place, shadow, secret(url)), write)


@pytest.fixture
def market(mariadb: MariaServer, secret: MakeSecret) -> Production:
    """Make a MariaDB production that is watched."""
    with closing(mariadb.connect()) as session, session.cursor() as cursor:
        cursor.execute("CREATE OR REPLACE DATABASE deadline")
        cursor.execute("CREATE TABLE deadline.orders (id serial PRIMARY KEY, note text, phone text)")
    place = f"mariadb://{mariadb.host}:{mariadb.port}/deadline"
    shadow = secret(mariadb.url("s", "s", "s"))

    def write(note: str) -> None:
        with closing(mariadb.connect("deadline")) as session, session.cursor() as cursor:
            cursor.execute("INSERT INTO orders (note, phone) VALUES (%s, '+49 170 5550100')", (note,))

    return Production(Store("market", "mariadb", place, shadow, secret(mariadb.admin_url)), write)


@dataclass
class Production:
    """A store that is watched, and how a row is written into its production."""

    store: Store
    write: Callable[[str], None]


class Generator:
    """Remembers when it was stopped, and why."""

    def __init__(self) -> None:
        self.stopped_s = 0.0
        self.reason = ""

    async def stop(self, reason: str) -> None:
        self.stopped_s, self.reason = time.monotonic(), reason


class Launched:
    """A run under way as `perflab.load.launch` has it, without its load: audit, control list, watchdog."""

    def __init__(self, folder: Path, *stores: Store) -> None:
        key = folder / "key"
        key.write_bytes(KEY)
        target = Target(("127.0.0.1:1",), str(folder / "control.json"), Secret(file=str(key)), stores=stores)
        self.run = Run.create(folder)
        self.tag = 7
        self.publisher = ControlPublisher(Path(target.control), KEY)
        self.reader = ControlReader(target.control, KEY)
        self.audit = Audit(stores, self.run.run_id)
        self.record = Record()
        self.generator: Any = Generator()
        self.refused_s = 0.0
        self.dog = Watchdog(
            target, (), Fleet(), self.record, self.event, lambda: self.publisher.kill(self.tag)
        )

    @property
    def canary(self) -> str:
        """What a marked request of this run carries."""
        return f"plc-{self.run.run_id}-{TRACE_ID}"

    def event(self, what: str, /, **details: Any) -> None:
        self.run.event(what, **details)
        if what == "leak":
            self.run.keep_evidence(details)

    def watch_while(self, leak: Callable[[], None], afterwards: Callable[[], None] = lambda: None) -> float:
        """Watch; commit a leak meanwhile; return when it was committed."""
        live = LiveRun(self.tag, self.run.run_id, self.run.run_id, int(time.time()) + 600)
        with self.publisher, self.audit:
            self.publisher.add(live)
            self.reader.start()
            self.audit.start()
            try:
                return asyncio.run(self._watch(leak))
            finally:
                afterwards()

    async def _watch(self, leak: Callable[[], None]) -> float:
        watching = asyncio.create_task(self.dog.watch(self.generator, self.audit))
        await asyncio.sleep(secrets.randbelow(1000) / 1000)  # at any moment of the watchdog's round
        assert self.reader.is_live(self.tag)
        await asyncio.to_thread(leak)
        committed_s = time.monotonic()
        while self.reader.is_live(self.tag) or not watching.done():
            assert time.monotonic() < committed_s + 10
            await asyncio.sleep(0.01)
        self.refused_s = time.monotonic()
        return committed_s


def test_a_leak_into_postgresql(shop: Production, tmp_path: Path) -> None:
    """Within two seconds load has stopped and an attached process refuses the run's marks."""
    # Given
    launched = Launched(tmp_path, shop.store)

    # When
    committed_s = launched.watch_while(lambda: shop.write(launched.canary))

    # Then
    is_stopped_in_time(launched, committed_s)
    evidence = evidence_of(launched)
    assert (evidence["store"], evidence["where"], evidence["what"]) == ("shop", "orders", "insert")
    assert evidence["transaction"].isdigit()
    assert "/" in evidence["position"]


def test_a_leak_into_mariadb(market: Production, tmp_path: Path) -> None:
    """The same from the binlog, with GTID and position."""
    # Given
    launched = Launched(tmp_path, market.store)

    # When
    committed_s = launched.watch_while(lambda: market.write(launched.canary))

    # Then
    is_stopped_in_time(launched, committed_s)
    evidence = evidence_of(launched)
    assert (evidence["store"], evidence["where"]) == ("market", "deadline.orders")
    assert evidence["transaction"].startswith("0-1-")
    assert evidence["position"].startswith("binlog.")


def test_a_store_that_answers_slowly_hides_no_leak_in_another(
    shop: Production, market: Production, mariadb: MariaServer, tmp_path: Path
) -> None:
    """While one production's server stands still, a leak in the other is found in time."""
    # Given
    launched = Launched(tmp_path, market.store, shop.store)
    assert mariadb.pid is not None
    pid = mariadb.pid

    def leak() -> None:
        os.kill(pid, signal.SIGSTOP)
        shop.write(launched.canary)

    # When
    committed_s = launched.watch_while(leak, afterwards=lambda: os.kill(pid, signal.SIGCONT))

    # Then
    is_stopped_in_time(launched, committed_s)
    assert evidence_of(launched)["store"] == "shop"


def is_stopped_in_time(launched: Launched, committed_s: float) -> None:
    """Check that both load and marks were stopped within two seconds."""
    took = (launched.generator.stopped_s - committed_s, launched.refused_s - committed_s)
    print(f"stopped sending after {took[0]:.2f} s, marks refused after {took[1]:.2f} s")
    assert max(took) < STOPPED_WITHIN_S
    assert "shadow work reached production" in launched.generator.reason
    assert launched.record.leaks[0].trace_id == TRACE_ID


def evidence_of(launched: Launched) -> dict[str, Any]:
    """Return the one piece of evidence; it holds nothing of a real user."""
    (path,) = (launched.run.path / "evidence").iterdir()
    found: dict[str, Any] = json.loads(path.read_text())
    assert (found["run"], found["trace_id"]) == (launched.run.run_id, TRACE_ID)
    assert launched.canary in found["evidence"]
    assert "<15 characters>" in found["evidence"]
    assert "5550100" not in json.dumps(found)
    assert 0 <= found["found_ns"] - found["time_ns"] < 3 * 10**9
    return found
