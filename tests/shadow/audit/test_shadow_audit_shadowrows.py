"""How much a shadow was written to, by the server's own statistics."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
from audited_maria import execute, make_maria
from audited_system import wait_until
from mariadb_server import MariaServer

from perflab.config import Secret, Store
from perflab.shadow.audit.shadowrows import count_shadow_rows

MakeSecret = Callable[[str], Secret]


def test_rows_of_a_postgresql_shadow(make_database: Callable[[str], str], secret: MakeSecret) -> None:
    """Every row ever changed counts."""
    url = make_database("CREATE TABLE t (a int)")
    store = Store("s", "postgresql", "postgresql://127.0.0.1/x", secret(url))
    assert count_shadow_rows(store) == 0
    with psycopg.connect(url, autocommit=True) as session:
        session.execute("INSERT INTO t VALUES (1), (2)")
        session.execute("SELECT pg_stat_force_next_flush()")
        wait_until(lambda: count_shadow_rows(store) == 2)


def test_rows_of_a_mariadb_shadow(blind_mariadb: MariaServer, secret: MakeSecret) -> None:
    """With userstat they are known, without they are not."""
    market = make_maria(blind_mariadb, secret)
    before = count_shadow_rows(market.store) or 0
    execute(market.shadow, "INSERT INTO orders (note) VALUES ('a'), ('b')")
    assert count_shadow_rows(market.store) == before + 2
    execute(market.session, "SET GLOBAL userstat = OFF")
    assert count_shadow_rows(market.store) is None
    execute(market.session, "SET GLOBAL userstat = ON")
    market.session.close()
    market.shadow.close()


def test_a_shadow_that_is_not_there_is_unknown(secret: MakeSecret) -> None:
    """So is one of a kind without statistics."""
    for kind, url in (
        ("postgresql", "postgresql://a:b@127.0.0.1:1/x"),
        ("mariadb", "mariadb://a:b@127.0.0.1:1/x"),
        ("redis", "redis://a:b@127.0.0.1:1/0"),
    ):
        store = Store("s", kind, url, secret(url))  # type: ignore[arg-type]  # one of the kinds
        assert count_shadow_rows(store) is None
