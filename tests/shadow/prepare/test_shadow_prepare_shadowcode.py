"""What tables made by LIKE carry, taken off them where it may do anything."""

from __future__ import annotations

from collections.abc import Callable

import psycopg

from perflab.shadow.prepare.shadowcode import left_out, mend
from perflab.shadow.sql.rewrite import rewrite
from perflab.shadow.sql.rewrite_room import Room

SCHEMA = """
CREATE FUNCTION f(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1';
CREATE SEQUENCE s;
CREATE TABLE t (a int DEFAULT nextval('s'), b int DEFAULT f(1), c int DEFAULT 3 CHECK (c > 0)
    CHECK (f(c) > 0),
                d int GENERATED ALWAYS AS (f(c)) STORED, e oid DEFAULT lo_create(0));
CREATE INDEX plain ON t ((c + 1));
CREATE INDEX calling ON t (f(c));
CREATE MATERIALIZED VIEW m AS SELECT 1;
CREATE SCHEMA shadow;
CREATE SEQUENCE shadow.s START 77;
CREATE TABLE shadow.t (LIKE t INCLUDING ALL);
"""


def test_only_what_is_proven_stays(make_database: Callable[[str], str]) -> None:
    """A server's own function that reaches out is taken off as a user's is; a sequence is the shadow's."""
    room = Room("postgresql", "schema", "shadow", "shop")
    with psycopg.connect(make_database(SCHEMA)) as session:
        session.execute("SET search_path = pg_catalog")
        # When
        said = mend(session, '"shadow"."t"', lambda text: rewrite(text, room))
        # Then
        assert sorted(line.split(" of ")[0].split(" ")[0] for line in said) == [
            "check", "default", "default", "generated", "index"
        ]  # fmt: skip
        row = session.execute("INSERT INTO shadow.t DEFAULT VALUES RETURNING a, b, c, d, e").fetchone()
        assert row == (77, None, 3, None, None)
        assert session.execute("SELECT count(*) FROM pg_largeobject_metadata").fetchone() == (0,)
        assert left_out(session) == ["materialized view public.m: not copied"]
