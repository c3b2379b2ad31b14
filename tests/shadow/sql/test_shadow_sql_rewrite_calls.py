"""What stands before a parenthesis, and what follows FROM, whatever a parser says."""

from __future__ import annotations

import pytest

from perflab.shadow.sql.rewrite_calls import read_calls, why_not
from perflab.shadow.sql.rewrite_lexer import Unproven, cut
from perflab.shadow.sql.rewrite_room import Room

ROOM = Room("postgresql", "schema", "shadow", "shop")
MARIADB = Room("mariadb", "table", "p_", "shop")


def calls(text: str, tables: tuple[str, ...] = (), room: Room = ROOM) -> list[str]:
    tokens = cut(text, room.kind)
    at = {token.start for token in tokens if token.text in tables}
    return [edit.text for edit in read_calls(tokens, set(), at, room)]


def test_functions_get_their_full_names() -> None:
    """So that none of the same name elsewhere is called; forms of the grammar have none."""
    assert (
        calls("SELECT lower(a), coalesce(a, b), substring(a, 1), substring(a FROM 1)") == ["pg_catalog."] * 2
    )
    assert calls("SELECT lower('a')", room=MARIADB) == []


def test_names_in_strings_are_the_shadows() -> None:
    """Of sequences, and of tables as regclass."""
    assert calls("SELECT nextval('s')") == ["pg_catalog.", """'"shadow"."s"'"""]
    assert calls("SELECT 's'::regclass") == ["""'"shadow"."s"'"""]


@pytest.mark.parametrize(
    "text",
    [
        "SELECT f(1)",
        "SELECT public.lower(1)",
        "SELECT a.pg_catalog.lower(1)",
        'SELECT "lower"(1)',
        "SELECT set(1)",
        "SELECT filter(1)",
        "SELECT over(1)",
        "SELECT key(1)",
        "SELECT 'x'(1)",
        "SELECT like(1)",
        "SELECT nextval(a)",
        "SELECT a::regproc",
        "SELECT $1::regclass",
        "SELECT 1 INTO x",
    ],
)
def test_all_other_calls_are_refused(text: str) -> None:
    """Words of the grammar in the place of a function are functions."""
    with pytest.raises(Unproven):
        calls(text)


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 1 FROM item",
        "DELETE FROM item",
        "INSERT INTO item",
        "UPDATE item SET a = 1",
        "SELECT 1 FROM a JOIN item",
        "TABLE item",
        "SELECT 1 FROM ONLY item",
    ],
)
def test_a_table_the_parser_missed_is_seen(text: str) -> None:
    """A name in a table's place that is not among those found is refused."""
    with pytest.raises(Unproven, match="leads to something"):
        calls(text, ("a",))
    assert calls(text, ("a", "item")) == []


def test_from_is_not_always_followed_by_a_table() -> None:
    """Nor is UPDATE."""
    assert (
        calls(
            "SELECT extract(epoch FROM a), trim(both FROM b), a IS DISTINCT FROM b FROM item FOR UPDATE",
            ("item",),
        )
        == []
    )


def test_reasons_are_told_apart() -> None:
    """What is shared within one database is called by its name."""
    assert "shared with production" in why_not("pg_advisory_lock")
    assert "large objects" in why_not("lo_create")
    assert "listeners" in why_not("pg_notify")
