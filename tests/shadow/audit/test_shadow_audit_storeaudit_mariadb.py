"""The audit of a MariaDB store on a real server: proven, leaking, and what forbids "proven"."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from audited_maria import MariaSystem, execute, make_maria
from audited_system import CANARY, RUN, TRACE_ID, poll_for
from mariadb_server import MariaServer

from perflab.config import Secret, Store
from perflab.shadow.audit import Audit


@pytest.fixture
def market(mariadb: MariaServer, secret: Callable[[str], Secret]) -> Iterator[MariaSystem]:
    """Make a production schema with a shadow schema on the same server."""
    made = make_maria(mariadb, secret)
    yield made
    made.session.close()
    made.shadow.close()


def test_a_clean_run_is_proven(market: MariaSystem) -> None:
    """Real users write, marked work writes to the shadow schema: everything is accounted for."""
    # Given
    with Audit([market.store], RUN) as audit:
        audit.start()

        # When
        for _ in range(5):
            market.order()
        execute(market.shadow, f"INSERT INTO orders (note) VALUES ('{CANARY}')")
        assert audit.poll() == []
        proof = audit.finish(market.claims, market.sessions, 1)

    # Then
    (row,) = proof["stores"]
    assert (proof["proven"], proof["leaks"], row["reasons"], row["not_checked"]) == (1, [], [], [])
    changes = row["changes"]
    assert (changes["unit"], changes["seen"], changes["attributed"]) == ("transactions", 5, 5)
    assert row["login_refused"]["tried"] == row["login_refused"]["refused"] == 2
    assert "Access denied for user 'keeper'" in row["login_refused"]["how"]
    assert row["marked_sessions"] == {"on_shadow": 3, "elsewhere": 0}
    assert row["shadow_changes"] == 1


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        (f"INSERT INTO orders (note) VALUES ('for {CANARY}')", "insert"),
        (f"UPDATE stock, orders SET note = '{CANARY}' WHERE orders.id = stock.id AND stock.id = 1", "update"),
        (f"INSERT INTO orders (raw) VALUES (UNHEX(HEX('{CANARY}')))", "insert"),
        (f"INSERT INTO mysql_only.notes VALUES ('{CANARY}')", "insert"),
        (
            f"SET STATEMENT binlog_format = STATEMENT FOR INSERT INTO orders (note) VALUES ('{CANARY}')",
            "statement",
        ),
    ],
)
def test_a_marked_row_in_production_is_a_leak_that_names_its_request(
    market: MariaSystem, statement: str, what: str
) -> None:
    """A canary is found within two seconds, in any column, schema and kind of event, with its GTID."""
    # Given
    execute(
        market.session, "CREATE OR REPLACE DATABASE mysql_only", "CREATE TABLE mysql_only.notes (note text)"
    )
    market.order()
    with Audit([market.store], RUN) as audit:
        audit.start()
        began_ns = time.time_ns()

        # When
        execute(market.session, statement)
        (leak,) = poll_for(audit, 1)
        seconds = (time.time_ns() - began_ns) / 1e9
        proof = audit.finish([], market.sessions, 1)
    execute(market.session, "DROP DATABASE mysql_only")

    # Then
    assert seconds < 2
    assert (leak.store, leak.trace_id, leak.what) == ("market", TRACE_ID, what)
    assert leak.transaction.count("-") == 2
    assert leak.position.startswith("binlog.")
    assert CANARY in leak.evidence
    assert proof["proven"] == 0
    assert "1 changes of production carry a canary of this run" in proof["stores"][0]["reasons"]


def test_a_write_nobody_claims_forbids_proven_and_a_time_alone_does_not(market: MariaSystem) -> None:
    """What has no claim is listed without its values; what has a claim of its time is counted apart."""
    # Given
    with Audit([market.store], RUN) as audit:
        audit.start()

        # When
        market.transaction(
            ("INSERT INTO stock VALUES (1, 5) ON DUPLICATE KEY UPDATE left_over = 5",), "opaque"
        )
        with_time_only = audit.finish(market.claims, market.sessions, 1)
    with Audit([market.store], RUN) as audit:
        audit.start()
        execute(market.session, "REPLACE INTO stock VALUES (2, 1234512345)")
        unclaimed = audit.finish([], market.sessions, 1)

    # Then
    assert with_time_only["proven"] == 1
    assert with_time_only["stores"][0]["changes"]["opaque"] == 1
    assert "covered by time only" in with_time_only["stores"][0]["limits"][-2]
    assert unclaimed["stores"][0]["changes"]["unattributed"] == 1
    assert "market.stock" in unclaimed["stores"][0]["changes"]["examples"][0]["what"]
    assert "1234512345" not in str(unclaimed)


def test_a_login_that_is_let_in_forbids_proven(
    market: MariaSystem, secret: Callable[[str], Secret], mariadb: MariaServer
) -> None:
    """A shadow login with rights on production's schema is no shadow login."""
    # Given
    execute(market.session, "GRANT SELECT ON market.* TO keeper@'127.0.0.1'")
    with Audit([market.store], RUN) as audit:
        audit.start()

        # When
        proof = audit.finish([], market.sessions, 1)
    execute(market.session, "REVOKE SELECT ON market.* FROM keeper@'127.0.0.1'")

    # Then
    assert proof["proven"] == 0
    assert "production let the shadow login in" in proof["stores"][0]["reasons"]


def test_the_schema_or_the_mode_decides_what_is_the_shadow(
    market: MariaSystem, secret: Callable[[str], Secret]
) -> None:
    """In mode table the shadow's tables lie beside production's: their canaries are none of a leak."""
    # Given
    execute(market.session, "CREATE TABLE pl_orders LIKE orders")
    url = market.store.shadow.read().replace("market_shadow", "market")
    store = Store(
        "market",
        "mariadb",
        market.store.production,
        secret(url),
        market.store.audit,
        mode="table",
        within="pl_",
    )
    with Audit([store], RUN) as audit:
        audit.start()

        # When
        execute(market.session, f"INSERT INTO pl_orders (note) VALUES ('{CANARY}')")
        proof = audit.finish([], market.sessions, 1)

    # Then
    assert proof["leaks"] == []
    assert proof["stores"][0]["changes"]["seen"] == 0
    assert "lie beside production's" in proof["stores"][0]["reasons"][0]
    assert proof["proven"] == 0


def test_sqlite_is_said_not_to_be_proven(secret: Callable[[str], Secret]) -> None:
    """No login and no log: what was counted is shown, and nothing is proven."""
    # Given
    store = Store("notes", "sqlite", "sqlite:////var/lib/notes.db", secret("sqlite:////var/lib/shadow.db"))
    with Audit([store], RUN) as audit:
        audit.start()

        # When
        proof = audit.finish([], [{"store": "notes", "shadow": True, "marked_calls": 4}], 4)

    # Then
    (row,) = proof["stores"]
    assert not row["proven"]
    assert row["marked_sessions"] == {"on_shadow": 4, "elsewhere": 0}
    assert "no logins" in row["not_checked"][0]
    assert row["login_refused"]["tried"] == 0
