"""Random statements, rewritten and sent by a superuser: nothing but the rewriting keeps production apart."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import psycopg
import pymysql
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mariadb_server import MariaServer
from random_statements import MARIADB, POSTGRESQL, Statements

from perflab.shadow.prepare.shadowtables import prepare_tables
from perflab.shadow.sql.rewrite import rewrite
from perflab.shadow.sql.rewrite_lexer import Unproven
from perflab.shadow.sql.rewrite_room import Room

STATEMENTS = int(os.environ.get("PERFLAB_REWRITE_STATEMENTS", "1500"))
EACH = 30
ROOMS = pytest.mark.parametrize(("mode", "within"), [("schema", "shadow"), ("table", "shadow_")])

# where each row is and which transaction wrote or locked it: an update that changes nothing shows, too
_ROWS = "SELECT string_agg(concat(ctid, xmin, xmax, t::text), ',' ORDER BY ctid) FROM ONLY {} t"
_TABLES = """
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname)
  FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
 WHERE c.relkind = 'r' AND n.nspname IN ('public', 'other') AND NOT starts_with(c.relname, %(prefix)s)
"""
_CATALOGUE = """
SELECT string_agg(c.oid || c.relname || c.relnatts || c.relfilenode || coalesce(c.relacl::text, '')
                  || coalesce(obj_description(c.oid, 'pg_class'), ''), ',' ORDER BY c.oid)
       || (SELECT string_agg(proname, ',' ORDER BY oid) FROM pg_proc WHERE oid >= 16384)
       || (SELECT string_agg(oid::text, ',' ORDER BY oid) FROM pg_largeobject_metadata)
       || (SELECT string_agg(schemaname || sequencename || coalesce(last_value, 0), ',' ORDER BY 1)
             FROM pg_sequences
            WHERE schemaname = 'public' AND NOT starts_with(sequencename, %(prefix)s))
  FROM pg_class c WHERE c.oid >= 16384 AND c.relpersistence <> 't'
   AND NOT starts_with(c.relname, %(prefix)s) AND c.relnamespace::regnamespace::text IN ('public', 'other')
"""
MARIADB_SEEN = """
SELECT * FROM item ORDER BY id;
SELECT * FROM stock ORDER BY id;
SELECT * FROM base;
SELECT * FROM `Odd ``name`;
SELECT next_not_cached_value FROM numbers;
SELECT IS_USED_LOCK('x');
SELECT table_name, auto_increment, create_time, table_comment FROM information_schema.tables
 WHERE table_schema = 'shop' AND table_name NOT LIKE 'shadow%' ORDER BY 1;
SELECT routine_name, last_altered FROM information_schema.routines WHERE routine_schema = 'shop'
"""
EVIDENT = """
UPDATE item SET note = note WHERE id = 1
SELECT nextval('numbers')
SELECT lo_create(0)
NOTIFY news, 'x'
SELECT pg_advisory_lock(7)
SELECT add_item('x')
CREATE VIEW v AS SELECT 1
COMMENT ON TABLE item IS 'x'
SELECT id FROM stock FOR UPDATE
TRUNCATE parts
"""
_LOCKS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"


class Production:
    """What a superuser past the rewriting sees of production."""

    def __init__(self, url: str, prefix: str) -> None:
        self._session = psycopg.connect(url, autocommit=True)
        self._session.execute("LISTEN news")
        self._options = {"prefix": prefix}
        found = self._session.execute(_TABLES.encode(), self._options).fetchall()
        self._tables = [_ROWS.format(name) for (name,) in found]

    def seen(self) -> tuple[Any, ...]:
        """Return all that must stay as it is."""
        answers = [self._session.execute(query.encode()).fetchone() for query in self._tables]
        answers.append(self._session.execute(_CATALOGUE.encode(), self._options).fetchone())
        heard = [notify.payload for notify in self._session.notifies(timeout=0)]
        return (*answers, self._session.execute(_LOCKS).fetchone(), heard)


def play(session: psycopg.Connection[Any], room: Room, statements: list[str]) -> Counter[str]:
    """Send what can be proven; tell what became of each."""
    told: Counter[str] = Counter()
    for text in statements:
        try:
            sent = rewrite(text, room)
        except Unproven:
            told["refused"] += 1
            continue
        try:
            cursor = session.cursor()
            if sent.lstrip().upper().startswith("COPY"):
                with cursor.copy(sent.encode()) as copy:
                    list(copy)
            else:
                cursor.execute(sent.encode())
            told["done"] += 1
        except psycopg.Error:
            told["failed"] += 1
            session.rollback()
        if session.info.transaction_status:
            session.commit()
    return told


def mariadb_seen(session: Any) -> list[Any]:
    """Return all of a MariaDB's production that must stay as it is."""
    seen: list[Any] = []
    with session.cursor() as cursor:
        for query in MARIADB_SEEN.strip().split(";"):
            cursor.execute(query)
            seen.append(cursor.fetchall())
    return seen


def test_nothing_random_reaches_a_mariadb(mariadb: MariaServer) -> None:
    """Rows, sequences, tables, functions, named locks: all as they were."""
    # Given
    with mariadb.connect() as admin, admin.cursor() as cursor:
        cursor.execute("DROP DATABASE IF EXISTS shop")
        cursor.execute("CREATE DATABASE shop")
        cursor.execute("USE shop")
        for text in MARIADB:
            cursor.execute(text)
        for table in ("item", "stock", "Odd ``name", "base"):
            cursor.execute(f"CREATE TABLE `shadow_{table}` LIKE `{table}`")
    room = Room("mariadb", "table", "shadow_", "shop")
    told: Counter[str] = Counter()
    with mariadb.connect("shop") as past, mariadb.connect("shop") as session:
        before = mariadb_seen(past)

        @settings(
            max_examples=max(1, STATEMENTS // EACH),
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.integers(0, 2**48))
        def batch(seed: int) -> None:
            drawn = Statements(random.Random(seed), "mariadb")
            statements = [drawn.draw() for _ in range(EACH)]
            # When
            for text in statements:
                told[send_to_mariadb(session, text, room)] += 1
            # Then
            assert mariadb_seen(past) == before, statements

        batch()
    print(f"mariadb: {sum(told.values())} statements, {dict(told)}, 0 changed production")
    assert min(told["done"], told["refused"]) > sum(told.values()) / 10


def send_to_mariadb(session: Any, text: str, room: Room) -> str:
    """Send one statement, if it can be proven; tell what became of it."""
    try:
        sent = rewrite(text, room)
    except Unproven:
        return "refused"
    try:
        with session.cursor() as cursor:
            cursor.execute(sent)
        return "done"
    except pymysql.MySQLError:
        return "failed"


@ROOMS
def test_nothing_random_reaches_production(
    make_database: Callable[[str], str], mode: str, within: str
) -> None:
    """Rows, sequences, catalogue, large objects, notifications, advisory locks: all as they were."""
    # Given
    url = make_database(POSTGRESQL)
    room = Room("postgresql", mode, within, url.rpartition("/")[2])
    prepare_tables(url, room, f"random_{mode}", "secret")
    production = Production(url, within)
    before = production.seen()
    told: Counter[str] = Counter()
    with psycopg.connect(url, prepare_threshold=None) as session:
        session.execute("SET statement_timeout = '10s'")
        session.commit()

        @settings(
            max_examples=max(1, STATEMENTS // EACH),
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.integers(0, 2**48))
        def batch(seed: int) -> None:
            drawn = Statements(random.Random(seed), "postgresql")
            statements = [drawn.draw() for _ in range(EACH)]
            # When
            told.update(play(session, room, statements))
            # Then
            assert production.seen() == before, statements

        batch()
    # And: without rewriting it shows, and the test was one, since all three happened often
    print(f"{mode}: {sum(told.values())} statements, {dict(told)}, 0 changed production")
    assert min(told["done"], told["refused"]) > sum(told.values()) / 10


def test_the_oracle_sees_what_is_not_rewritten(make_database: Callable[[str], str]) -> None:
    """Each of these, sent as it is, changes what is compared."""
    url = make_database(POSTGRESQL)
    production = Production(url, "shadow")
    before = production.seen()
    with psycopg.connect(url, autocommit=True) as session:
        for text in EVIDENT.strip().splitlines():
            session.execute(text.encode())
            after = production.seen()
            assert after != before, text
            before = after
