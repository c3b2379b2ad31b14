"""Names of shadow tables."""

from __future__ import annotations

import pytest

from perflab.shadow.sql.rewrite_lexer import Token, Unproven, cut
from perflab.shadow.sql.rewrite_room import Edit, Room

SCHEMA = Room("postgresql", "schema", "sha dow", "shop")
TABLE = Room("postgresql", "table", "p_", "shop")
MARIADB = Room("mariadb", "table", "p_", "shop")


def token(text: str, kind: str = "postgresql") -> Token:
    return cut(text, kind)[0]


def test_names_are_quoted_and_never_cut_off() -> None:
    """Quotes are doubled; a name the server would shorten is refused, by bytes."""
    assert SCHEMA.quoted('a"b') == '"a""b"'
    assert MARIADB.quoted("a`b") == "`a``b`"
    assert TABLE.quoted("x" * 63)
    for name in ("x" * 64, "é" * 32):
        with pytest.raises(Unproven, match="too long"):
            TABLE.quoted(name)


def test_a_string_that_names_a_table_is_one_plain_name() -> None:
    """Folded and quoted as the server would read it."""
    assert SCHEMA.literal(token("'Public.Item'")) == Edit(0, 13, """'"sha dow"."item"'""")
    assert TABLE.literal(token("""'public."It em"'""")).text == """'"public"."p_It em"'"""
    assert Room("postgresql", "schema", "it's", "shop").literal(token("'a'")).text == """'"it''s"."a"'"""
    for text in ("'a b'", "'1'", "'a.b.c'", "E'a'", "$$a$$", "'a\\b'", "''"):
        with pytest.raises(Unproven, match="not written out plainly"):
            SCHEMA.literal(token(text))


def test_only_names_of_the_room_are_shadows() -> None:
    """Schema or prefix, or one of the server's own tables that may be read."""
    assert SCHEMA.is_shadow(token('"sha dow"'), token("item"))
    assert not SCHEMA.is_shadow(token("public"), token("item"))
    assert not SCHEMA.is_shadow(None, token("item"))
    assert TABLE.is_shadow(None, token('"p_item"'))
    assert not TABLE.is_shadow(None, token('"item"'))
    assert MARIADB.is_shadow(None, token("`p_item`", "mariadb"))
    assert SCHEMA.is_shadow(token("pg_catalog"), token("pg_class"))
    assert not SCHEMA.is_shadow(None, token("pg_class"))


def test_a_schema_written_otherwise_is_no_catalogue() -> None:
    """PostgreSQL's "PG_CATALOG" in quotes is a schema like others."""
    assert not SCHEMA.is_catalog(token('"PG_CATALOG"'), token("pg_class"))
    with pytest.raises(Unproven, match="not one that is known"):
        SCHEMA.is_catalog(token("pg_catalog"), token("pg_authid"))
