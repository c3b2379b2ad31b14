"""Queries led to shadow tables, node by node."""

from __future__ import annotations

import pytest

from perflab.shadow.sql.rewrite_lexer import Unproven, cut, masked
from perflab.shadow.sql.rewrite_query import parse, prove, read_query
from perflab.shadow.sql.rewrite_room import Edit, Room

ROOM = Room("postgresql", "schema", "shadow", "shop")


def edits(text: str, room: Room = ROOM) -> list[Edit]:
    tokens = cut(text, room.kind)
    return read_query(masked(text, tokens, room.kind), tokens, room)


def test_edits_are_at_the_names() -> None:
    """Nothing else of the text is touched."""
    assert edits("SELECT id FROM item") == [Edit(15, 15, '"shadow".')]
    assert edits("SELECT id FROM public.item") == [Edit(15, 21, '"shadow"')]


def test_a_with_query_is_renamed_where_it_is_in_reach() -> None:
    """Out of reach the same name is a table's."""
    found = {edit.text for edit in edits("SELECT 1 FROM (WITH x AS (SELECT 1) SELECT * FROM x) y, x")}
    assert found == {'"perflab:x"', '"perflab:x" AS x', '"shadow".'}


def test_unknown_kinds_of_nodes_are_refused() -> None:
    """A list of what is known, and none of what is not."""
    for text, why in (
        ("SELECT 1 INTO x", "Into"),
        ("SELECT (a).b FROM item", "in disguise"),
        ("SELECT f()", "f may do anything"),
        ("SELECT FROM FROM", "cannot be parsed"),
    ):
        tokens = cut(text, "postgresql")
        with pytest.raises(Unproven, match=why):
            parse(masked(text, tokens, "postgresql"), tokens, "postgresql")


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM item",
        "SELECT * FROM public.item",
        'SELECT * FROM "perflab:x"',
        "DELETE FROM item",
        'SELECT * FROM "shadow".item, other',
        "WITH x AS (SELECT 1) SELECT * FROM x",
    ],
)
def test_an_edited_text_with_a_table_of_production_is_no_proof(text: str) -> None:
    """The second reading stands by itself: it would catch what the first had missed."""
    tokens = cut(text, "postgresql")
    with pytest.raises(Unproven, match="is not a shadow's"):
        prove(masked(text, tokens, "postgresql"), tokens, ROOM)
