"""How much was written to a shadow: no part of the proof, but a report that says 0 tested nothing."""

from __future__ import annotations

from perflab.config import Store
from perflab.errors import PerflabError
from perflab.shadow import mariadb_login

_POSTGRESQL = """
SELECT coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0)::bigint FROM pg_stat_user_tables
"""
_MARIADB = """
SELECT COALESCE(SUM(ROWS_CHANGED), 0) FROM information_schema.TABLE_STATISTICS
 WHERE TABLE_SCHEMA = DATABASE()
"""


def count_shadow_rows(store: Store) -> int | None:
    """Return the rows ever changed in the shadow, as its statistics know by now; None if unknown."""
    try:
        url = store.shadow.read()
        if store.kind == "postgresql":
            return _of_postgresql(url)
        return _of_mariadb(url) if store.kind == "mariadb" else None
    except PerflabError:
        return None


def _of_postgresql(url: str) -> int | None:
    import psycopg

    try:
        with psycopg.connect(url, connect_timeout=5) as session:
            row = session.execute(_POSTGRESQL).fetchone()
    except psycopg.Error:
        return None
    return int(row[0]) if row else None


def _of_mariadb(url: str) -> int | None:
    import pymysql

    session = mariadb_login.connect(url)
    try:
        if mariadb_login.variable(session, "userstat") != "ON":
            return None
        return int(mariadb_login.rows(session, _MARIADB)[0][0])
    except pymysql.MySQLError:
        return None
    finally:
        session.close()
