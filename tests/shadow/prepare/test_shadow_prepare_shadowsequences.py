"""Sequences of the shadow's own."""

from __future__ import annotations

from collections.abc import Callable

import psycopg

from perflab.shadow.prepare.shadowsequences import make_sequences, own_identities, shadow_name
from perflab.shadow.sql.rewrite_room import Room

SCHEMA = """
CREATE SEQUENCE up; CREATE SEQUENCE down INCREMENT -1; CREATE SEQUENCE small AS smallint CYCLE;
SELECT nextval('up');
CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY);
CREATE TABLE p_t (LIKE t);
"""


def test_names_of_both_modes() -> None:
    """A schema of their own, or names of their own."""
    assert shadow_name(Room("postgresql", "schema", "shadow", "shop"), "a", "t") == '"shadow"."t"'
    assert shadow_name(Room("postgresql", "table", "p_", "shop"), "a", "t") == '"a"."p_t"'


def test_they_begin_far_ahead_in_their_own_direction(make_database: Callable[[str], str]) -> None:
    """Or half way to the end where that is nearer; made once, and production's stand still."""
    room = Room("postgresql", "table", "p_", "shop")
    with psycopg.connect(make_database(SCHEMA)) as session:
        # When
        made = make_sequences(session, room, "by perflab")
        assert make_sequences(session, room, "by perflab") == made
        own_identities(
            session, room, session.execute("SELECT 't'::regclass::oid").fetchone()[0], "public.p_t"
        )  # type: ignore[index]  # one row
        # Then
        assert made == ['"public"."p_down"', '"public"."p_small"', '"public"."p_up"']
        first = session.execute("SELECT nextval('p_up'), nextval('p_down'), nextval('p_small')").fetchone()
        assert first == (1_000_000_001, -1_000_000_001, 16_384)
        assert session.execute("INSERT INTO p_t DEFAULT VALUES RETURNING id > 1000000").fetchone() == (True,)
        assert session.execute("SELECT last_value FROM up").fetchone() == (1,)
        assert session.execute("SELECT pg_get_serial_sequence('p_t', 'id')").fetchone() == (
            "public.p_t_id_seq",
        )
