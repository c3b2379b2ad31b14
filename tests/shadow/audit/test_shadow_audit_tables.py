"""What the catalogue says of tables, and how claims are read by it."""

from __future__ import annotations

from collections.abc import Callable

import psycopg

from perflab.shadow.audit.tables import Tables, read_tables

TABLES = """
CREATE TABLE orders (id int PRIMARY KEY, note text, raw bytea);
CREATE TABLE lines (order_id int REFERENCES orders ON DELETE CASCADE, n int, PRIMARY KEY (order_id, n));
CREATE TABLE log (line text);
CREATE UNLOGGED TABLE cache (k text PRIMARY KEY);
CREATE TABLE generated (id int GENERATED ALWAYS AS (a + 1) STORED PRIMARY KEY, a int);
CREATE TABLE deferred (id int PRIMARY KEY DEFERRABLE);
CREATE TABLE whole (a int);
ALTER TABLE whole REPLICA IDENTITY FULL;
CREATE TABLE parts (id int, k int, PRIMARY KEY (id, k)) PARTITION BY LIST (k);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES IN (2);
CREATE TABLE "Odd ""name"" x" (id int PRIMARY KEY);
INSERT INTO orders VALUES (1); INSERT INTO log VALUES ('a'); INSERT INTO generated VALUES (DEFAULT, 1);
INSERT INTO deferred VALUES (1); INSERT INTO whole VALUES (1); INSERT INTO lines VALUES (1, 1), (1, 2);
"""


def test_tables_are_sorted_by_what_the_log_shows(make_database: Callable[[str], str]) -> None:
    """Replica identities, unlogged tables, partitions and indirect changes are told apart."""
    # When
    with psycopg.connect(make_database(TABLES)) as session:
        tables = read_tables(session)

    # Then
    assert {name for _, name in tables.with_identity} == {
        "orders", "lines", "whole", "parts_1", "parts_2", 'Odd "name" x',
    }  # fmt: skip
    assert tables.without_identity == {("public", "log"), ("public", "generated"), ("public", "deferred")}
    assert tables.unlogged == {("public", "cache")}
    assert tables.root_of == {"parts_1": "parts", "parts_2": "parts"}
    assert tables.indirect == {"orders", "parts"}


def test_a_trigger_or_a_rule_makes_changes_indirect(make_database: Callable[[str], str]) -> None:
    """What else a statement changes then is not told to its client."""
    # Given
    url = make_database(
        TABLES
        + "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
        + "CREATE TRIGGER t AFTER INSERT ON whole FOR EACH ROW EXECUTE FUNCTION f();"
        + "CREATE TRIGGER off AFTER INSERT ON lines FOR EACH ROW EXECUTE FUNCTION f();"
        + "ALTER TABLE lines DISABLE TRIGGER off;"
        + "CREATE RULE r AS ON INSERT TO log DO ALSO DELETE FROM whole;"
    )

    # When
    with psycopg.connect(url) as session:
        tables = read_tables(session)

    # Then
    assert tables.indirect == {"orders", "parts", "whole", "log"}


def test_claims_are_read_as_the_stream_shows_them(make_database: Callable[[str], str]) -> None:
    """What cannot be in the stream is left out; what a client is not told in full is opaque too."""
    # Given
    plain = "CREATE TABLE plain (id int PRIMARY KEY); CREATE VIEW seen AS SELECT * FROM plain;"
    twins = "CREATE SCHEMA other; CREATE TABLE other.log (id int PRIMARY KEY);"
    with psycopg.connect(make_database(TABLES + plain)) as session:
        tables = read_tables(session)
        session.execute(twins)
        with_twins = read_tables(session)

    # When
    def read(fingerprint: object, tables: Tables = tables) -> tuple[str, bool] | None:
        found = tables.claim({"fingerprint": fingerprint, "begin_ns": 1, "end_ns": 2})
        return (found.fingerprint, found.opaque) if found else None

    # Then
    assert read('[["plain","insert",1]]') == ('[["plain","insert",1]]', False)
    assert read([["public.PLAIN", "insert", 1]]) == ('[["plain","insert",1]]', False)
    assert read("opaque") == ("", True)
    assert read('[["temporary","insert",1]]') is None
    assert read('[["cache","insert",1]]') is None
    assert read('[["log","delete",1],["plain","insert",1]]') == ('[["plain","insert",1]]', False)
    assert read('[["log","insert",1]]') == ('[["log","insert",1]]', False)
    assert read('[["orders","delete",1]]') == ('[["orders","delete",1]]', True)
    assert read('[["parts_1","insert",1]]') == ('[["parts","insert",1]]', True)
    assert read('[["seen","insert",1]]') == ("[]", True)
    assert read('[["plain","truncate",1]]') == ('[["plain","truncate",1]]', True)
    assert read("no fingerprint") is None
    assert read('[["log","delete",1]]', with_twins) == ('[["log","delete",1]]', True)
