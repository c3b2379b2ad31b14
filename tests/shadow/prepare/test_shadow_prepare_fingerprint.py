"""Two databases have one schema, or what differs is named."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from perflab.shadow.prepare.fingerprint import differences, fingerprint, read_schema

SCHEMA = """
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE DOMAIN amount AS int CHECK (VALUE > 0);
CREATE TABLE t (id serial PRIMARY KEY, n int DEFAULT 1, m mood, a amount CHECK (a < 9), s text);
CREATE INDEX t_n ON t (n);
CREATE VIEW v AS SELECT n FROM t;
CREATE SEQUENCE seq;
CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION g() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION g();
CREATE POLICY p ON t USING (n > 0);
CREATE RULE r AS ON DELETE TO t DO INSTEAD NOTHING;
"""


def test_rows_owners_and_positions_do_not_count(make_database: Callable[[str], str]) -> None:
    """The same statements make the same fingerprint, whatever was written since."""
    one, two = make_database(SCHEMA), make_database(SCHEMA)
    with psycopg.connect(one) as a, psycopg.connect(two) as b:
        b.execute("INSERT INTO t (m) VALUES ('good')")
        b.execute("SELECT nextval('seq')")
        b.execute("SET search_path = pg_temp")
        assert fingerprint(read_schema(a)) == fingerprint(read_schema(b))
        assert differences(read_schema(a), read_schema(b)) == []


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("ALTER TABLE t ADD COLUMN x int", "column public.t.x is new in production"),
        ("ALTER TABLE t ALTER COLUMN n SET DEFAULT 2", "column public.t.n has changed"),
        ("ALTER TABLE t ALTER COLUMN s TYPE varchar(9)", "column public.t.s has changed"),
        ("DROP INDEX t_n", "index public.t_n is only in the shadow"),
        ("CREATE OR REPLACE VIEW v AS SELECT n + 0 AS n FROM t", "view public.v has changed"),
        ("ALTER TYPE mood ADD VALUE 'so so'", "type public.mood has changed"),
        ("ALTER SEQUENCE seq INCREMENT BY 2", "sequence public.seq has changed"),
        (
            "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 2'",
            "routine public.f() has changed",
        ),
        ("ALTER TABLE t DISABLE TRIGGER tr", "trigger public.t.tr has changed"),
        ("ALTER TABLE t ENABLE ROW LEVEL SECURITY", "table public.t has changed"),
        ("ALTER POLICY p ON t USING (n > 1)", "policy public.t.p has changed"),
        ("CREATE SCHEMA more", "schema more is new in production"),
        ("ALTER TABLE t DROP CONSTRAINT t_a_check", "constraint public.t.t_a_check is only in the shadow"),
    ],
)
def test_each_change_is_named(make_database: Callable[[str], str], statement: str, named: str) -> None:
    """And changes the fingerprint."""
    with psycopg.connect(make_database(SCHEMA)) as session:
        before = read_schema(session)
        session.execute(statement)
        after = read_schema(session)
    assert fingerprint(before) != fingerprint(after)
    assert named in differences(after, before)
