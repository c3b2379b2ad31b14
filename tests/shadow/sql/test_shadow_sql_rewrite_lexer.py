"""Text cut into tokens as the servers cut it."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perflab.shadow.sql.rewrite_lexer import Unproven, cut, masked

PIECES = st.sampled_from(
    [
        "'",
        "''",
        '"',
        "\\",
        "--",
        "\n",
        "/*",
        "*/",
        "$$",
        "$a$",
        "$1",
        "%s",
        "e'",
        "E'x'",
        "a",
        "1",
        " ",
        ";",
        "b'",
        "::",
        ".",
    ]
)


@pytest.mark.parametrize(
    ("kind", "text", "tokens"),
    [
        ("postgresql", "a/* /* b */ c */d", ["a", "d"]),
        ("postgresql", "'it''s' E'a\\'b' $x$ ' $x$ $1", ["'it''s'", "E'a\\'b'", "$x$ ' $x$", "$1"][:1]),
        ("postgresql", 'a -- b\nc"d""e"', ["a"]),
        ("postgresql", "a$b $$x$$", ["a$b", "$$x$$"]),
        ("postgresql", "%(a)s::int %% %s", ["%(a)s", "::", "int", "%%", "%s"]),
        ("mariadb", "`a``b` 'it\\'s' -- c\nd # e\n?", ["`a``b`", "'it\\'s'", "d", "?"]),
        ("mariadb", "_binary'a' @@session.x", ["_binary'a'", "@@session.x"]),
    ],
)
def test_tokens(kind: str, text: str, tokens: list[str]) -> None:
    """Comments go, strings and names stay whole; what is doubtful is refused."""
    try:
        assert [token.text for token in cut(text, kind)] == tokens
    except Unproven:
        assert len(tokens) == 1, "two strings in a row, a name that runs into another"


def test_a_masked_text_has_the_same_places() -> None:
    """The same length; strings, odd names and placeholders are plain."""
    text = """SELECT 'FROM x', "o""dd", %(a)s /* y */ FROM "t" WHERE a = $tag$ z $tag$"""
    tokens = cut(text, "postgresql")
    plain = masked(text, tokens, "postgresql")
    assert (
        plain.replace("x", "~")
        == """SELECT '~~~~~~', "qqqqq", $1            FROM "t" WHERE a = '~~~~~~~~~~~'"""
    )
    assert [plain[token.start : token.end] for token in tokens if token.kind == "word"] == [
        token.text for token in tokens if token.kind == "word"
    ]


def test_names_are_folded_as_the_server_does() -> None:
    """PostgreSQL's without quotes become lower case, ASCII letters only; MariaDB's stay."""
    word, name = cut('ITEM "It""em"', "postgresql")
    assert (word.named("postgresql"), name.named("postgresql")) == ("item", 'It"em')
    assert cut("ITEM", "mariadb")[0].named("mariadb") == "ITEM"
    with pytest.raises(Unproven, match="where a name should be"):
        cut("'x'", "postgresql")[0].named("postgresql")


def test_strings_end_where_postgresql_ends_them(make_database: Callable[[str], str]) -> None:
    """Whatever is drawn: what is cut into one string is one value to the server, too."""
    with psycopg.connect(make_database("SELECT 1"), autocommit=True) as session:

        @settings(max_examples=300, deadline=None)
        @given(st.lists(PIECES, min_size=1, max_size=6).map("".join))
        def same(text: str) -> None:
            # Given
            try:
                tokens = cut(f"'{text}'", "postgresql")
            except Unproven:
                return
            if len(tokens) != 1 or tokens[0].end != len(text) + 2:
                return
            # When
            value = session.execute(f"SELECT '{text}'".encode()).fetchone()
            # Then
            assert value == (text.replace("''", "'"),)

        same()
