"""Statements that are no queries."""

from __future__ import annotations

import pytest

from perflab.shadow.sql.rewrite_commands import read_command
from perflab.shadow.sql.rewrite_lexer import Unproven, cut
from perflab.shadow.sql.rewrite_room import Edit, Room

ROOM = Room("postgresql", "schema", "shadow", "shop")
INNER = [Edit(0, 0, "inner")]


def read(text: str, kind: str = "postgresql") -> list[Edit] | None:
    room = ROOM if kind == "postgresql" else Room(kind, "table", "p_", "shop")
    return read_command(cut(text, kind), room, lambda tokens: [Edit(tokens[0].start, 0, "inner")])


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("EXPLAIN (ANALYZE, COSTS OFF) SELECT 1", 29),
        ("EXPLAIN ANALYZE VERBOSE SELECT 1", 24),
        ("DECLARE c CURSOR FOR SELECT 1", 21),
        ("PREPARE p (int, text) AS SELECT 1", 25),
        ("COPY (SELECT 1) TO STDOUT", 6),
    ],
)
def test_a_query_inside_is_read_as_one(text: str, at: int) -> None:
    """From where it begins."""
    assert read(text) == [Edit(at, 0, "inner")]


@pytest.mark.parametrize(
    "text",
    [
        "BEGIN",
        "COMMIT AND CHAIN",
        "ROLLBACK TO SAVEPOINT x",
        "FETCH 3 FROM c",
        "SHOW ALL",
        "SET LOCAL lock_timeout = %s",
        "RESET ALL",
        "EXECUTE p ('x', NULL)",
        "CLOSE c",
    ],
)
def test_what_concerns_this_session_only_passes(text: str) -> None:
    """As it is."""
    assert read(text) == []


def test_a_query_is_left_to_others() -> None:
    """None says so."""
    assert read("SELECT 1") is None
    assert read("LOCK TABLES item WRITE", "mariadb") is None, "no statement that is known"


@pytest.mark.parametrize(
    "text",
    [
        "BEGIN NOT ATOMIC DELETE FROM item",
        "START SLAVE",
        "SET NAMES utf8mb4, sql_mode = ''",
        "SET @@global.autocommit = 1",
        "SHOW CREATE TABLE item",
        "FETCH c INTO x",
    ],
)
def test_mariadbs_own_ways_around_are_refused(text: str) -> None:
    """Blocks, replication, encodings, variables of others."""
    with pytest.raises(Unproven):
        read(text, "mariadb")


@pytest.mark.parametrize(
    "text",
    [
        "TRUNCATE item CASCADE",
        "TRUNCATE a.b.c",
        "COPY item TO '/tmp/x'",
        "LOCK item IN x MODE (1)",
        "DECLARE c",
        "PREPARE p",
        "EXPLAIN (ANALYZE",
        "COMMIT PREPARED 'x'",
    ],
)
def test_forms_that_are_not_known_are_refused(text: str) -> None:
    """Whatever may come after what is known."""
    with pytest.raises((Unproven, IndexError)):
        read(text)
