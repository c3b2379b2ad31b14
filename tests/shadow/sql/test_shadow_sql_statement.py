"""What SQL statements are said to do: by hand, and whatever noise stands between their words."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from timed import fastest

from perflab.shadow.sql.statement import Statement, _read, read_statement, without_words


@pytest.mark.parametrize(
    ("text", "summary", "writes"),
    [
        ("select 1", "SELECT", "no"),
        ("SELECT a FROM shop.Stock WHERE id IN (1, 2)", "SELECT stock", "no"),
        ('select * from "Order" o join item i using (id)', "SELECT order", "no"),
        ("(select 1) union (select 2 from b)", "SELECT b", "no"),
        ("SELECT count(*), coalesce(max(x), 0) FROM ONLY t FOR UPDATE", "SELECT t", "no"),
        ("SELECT extract(year FROM day) FROM t", "SELECT t", "no"),
        ("SELECT x::numeric(10, 2) FROM (VALUES (1)) AS v(x)", "SELECT", "no"),
        ("SELECT nextval('s')", "SELECT", "no"),
        ("SELECT place_order(1)", "SELECT", "opaque"),
        ("SELECT * FROM shop.place_order(1)", "SELECT", "opaque"),
        ("SELECT * INTO copied FROM t", "SELECT t", "opaque"),
        ("WITH x(a) AS (SELECT 1) SELECT * FROM x", "SELECT x", "no"),
        ("WITH RECURSIVE x(a, b) AS (SELECT 1, 2 UNION SELECT a, b FROM x) TABLE x", "SELECT x", "no"),
        ("WITH d AS (DELETE FROM a RETURNING id) INSERT INTO b SELECT id FROM d", "INSERT b", "opaque"),
        ("WITH u AS (UPDATE orders AS o SET a = 1 RETURNING *) SELECT * FROM u", "UPDATE orders", "opaque"),
        ("INSERT INTO orders (note) VALUES ('from here')", "INSERT orders", "rows"),
        ("insert into a.b select * from c", "INSERT b", "rows"),
        ("INSERT INTO a VALUES (1) ON CONFLICT DO NOTHING", "INSERT a", "rows"),
        ("INSERT INTO a VALUES (1) ON CONFLICT (id) DO UPDATE SET x = 1", "INSERT a", "opaque"),
        ("UPDATE ONLY a SET x = (SELECT 1) WHERE y = ';'", "UPDATE a", "rows"),
        ("DELETE FROM a USING b WHERE a.id = b.id", "DELETE a", "rows"),
        ("MERGE INTO a USING b ON true WHEN MATCHED THEN DELETE", "MERGE a", "opaque"),
        ("TRUNCATE TABLE a", "TRUNCATE a", "opaque"),
        ("COPY a (x, y) FROM STDIN", "COPY a", "rows"),
        ("COPY a FROM '/tmp/file'", "COPY a", "rows"),
        ("COPY a TO STDOUT", "COPY a", "no"),
        ("COPY (SELECT 1) TO STDOUT", "COPY", "no"),
        ("COPY (DELETE FROM a RETURNING 1) TO STDOUT", "COPY", "opaque"),
        ("EXPLAIN DELETE FROM a", "EXPLAIN a", "no"),
        ("EXPLAIN (ANALYZE) DELETE FROM a", "EXPLAIN a", "opaque"),
        ("INSERT INTO a VALUES (1); DELETE FROM b", "INSERT a", "opaque"),
        ("INSERT INTO a VALUES ('--'); DELETE FROM b", "INSERT a", "opaque"),
        ("CREATE TABLE a (x int)", "CREATE", "opaque"),
        ("CALL work()", "CALL", "opaque"),
        ("DO $$ BEGIN DELETE FROM a; END $$", "DO", "opaque"),
        ("EXECUTE prepared(1)", "EXECUTE", "opaque"),
        ("VACUUM a", "VACUUM", "opaque"),
        ("SET search_path = a", "SET", "no"),
        ("SHOW all", "SHOW", "no"),
        ("LISTEN news", "LISTEN", "no"),
        ("BEGIN ISOLATION LEVEL SERIALIZABLE", "BEGIN", "no"),
        ("", "EMPTY", "no"),
        (" -- nothing", "EMPTY", "no"),
    ],
)  # fmt: skip
def test_statements(text: str, summary: str, writes: str) -> None:
    """Operation and table for the span, what it may write for the claim."""
    read = read_statement(text)
    assert (read.summary, read.writes) == (summary, writes)


@pytest.mark.parametrize(
    ("text", "ends", "savepoint"),
    [
        ("COMMIT", "commit", ""),
        ("end transaction;", "commit", ""),
        ("ROLLBACK AND CHAIN", "rollback", ""),
        ("ABORT", "rollback", ""),
        ("SAVEPOINT Sa_1", "savepoint", "sa_1"),
        ('SAVEPOINT "A b"', "savepoint", "a b"),
        ("RELEASE sa_1", "release", "sa_1"),
        ("RELEASE SAVEPOINT sa_1", "release", "sa_1"),
        ("ROLLBACK TO sa_1", "rollback to", "sa_1"),
        ("ROLLBACK WORK TO SAVEPOINT sa_1", "rollback to", "sa_1"),
        ("SELECT 1", "", ""),
    ],
)
def test_ends_of_transactions_and_savepoints(text: str, ends: str, savepoint: str) -> None:
    """What it does to the transaction, or to which savepoint."""
    read = read_statement(text)
    assert (read.ends, read.savepoint, read.writes) == (ends, savepoint, "no")


def test_two_phases_are_opaque() -> None:
    """What a prepared transaction wrote is not known where it is committed."""
    assert read_statement("COMMIT PREPARED 'x'") == Statement("COMMIT", "", "opaque", "commit")


NOISE = st.one_of(
    st.sampled_from(
        [" ", "\n", "\t", "  ", "-- DELETE FROM x; it's\n", "/* ; ' */ ", "/* \n INSERT INTO y */"]
    ),
    st.text("ab;'-\" ", max_size=8).map(lambda text: "/*" + text.replace("*/", "") + "*/"),
)
LITERAL = st.one_of(
    st.text("ab;'-/*$\"\n", max_size=10).map(lambda text: "'" + text.replace("'", "''") + "'"),
    st.text("ab;'-/*\" ", max_size=10).map(lambda text: f"$q${text}$q$"),
    st.text('ab;-/*" ', max_size=10).map(lambda text: f"E'{text}\\'x'"),
    st.sampled_from(["'; DELETE FROM x'", "$$insert into y$$", "'--'", "'/*'"]),
)
PATTERNS = {
    ("INSERT", "INTO", "orders", "VALUES", "(", None, ",", None, ")"): ("INSERT orders", "rows"),
    ("UPDATE", "orders", "SET", "a", "=", None, "WHERE", "b", "=", None): ("UPDATE orders", "rows"),
    ("DELETE", "FROM", "orders", "WHERE", "a", "=", None): ("DELETE orders", "rows"),
    ("SELECT", None, "FROM", "orders", "WHERE", "a", "=", None): ("SELECT orders", "no"),
    ("INSERT", "INTO", "orders", "VALUES", "(", None, ")", ";", "SELECT", None): ("INSERT orders", "opaque"),
}


@given(st.data(), st.sampled_from(sorted(PATTERNS, key=str)))
def test_noise_changes_nothing(data: st.DataObject, pattern: tuple[str | None, ...]) -> None:
    """Comments and literals, whatever stands in them, do not change what a statement is said to do."""
    # Given
    words = [data.draw(LITERAL) if word is None else word for word in pattern]
    text = data.draw(NOISE) + "".join(word + data.draw(NOISE) for word in words)
    # Then
    read = read_statement(text)
    assert (read.summary, read.writes) == PATTERNS[pattern]


@given(st.text(max_size=200))
def test_any_text_is_read(text: str) -> None:
    """Whatever it is, it has a name and an opinion."""
    read = read_statement(text)
    assert read.writes in ("no", "rows", "opaque")
    assert read.summary


def test_of_a_long_statement_the_head_is_read() -> None:
    """An INSERT of a megabyte costs no more than its head; it counts as opaque, and is not kept."""
    long = "INSERT INTO orders VALUES " + ", ".join(f"({number})" for number in range(200_000))
    assert read_statement(long) == Statement("INSERT", "orders", "opaque")


QUOTED = re.compile(r"\$(?P<tag>(?:[A-Za-z_]\w*)?)\$.*?\$(?P=tag)\$", re.DOTALL)


@given(st.text("$ab1 ;", max_size=30))
def test_dollars_quote_as_a_simple_pattern_says(text: str) -> None:
    """The reading in one pass finds the quotes that a pattern finds that begins anew at every dollar sign."""
    assert without_words(text) == QUOTED.sub("''", text)


HOSTILE = {
    "tags that nothing closes": lambda n: "".join(f"$a{number}$ " for number in range(n)),
    "tags that close each other": lambda n: "".join(f"$a{number % 7}$ " for number in range(n)),
    "one tag and dollar signs": lambda n: "$a$" + "$ " * n,
    "a string that is not closed": lambda n: "SELECT '" + "a''" * n,
    "an E-string that is not closed": lambda n: "SELECT E'" + "\\'" * n,
    "a long word before a call": lambda n: "SELECT x(1), " + "a" * n,
    "a long name before a call": lambda n: "SELECT x(1), a" + ".a" * n,
    "comments": lambda n: "/*" * n,
}


@pytest.mark.parametrize("what", HOSTILE)
def test_reading_takes_time_in_proportion_to_the_length(what: str) -> None:
    """Eight times the text takes about eight times as long, not sixty-four times."""
    short, long = (HOSTILE[what](size) for size in (1_000, 8_000))
    assert fastest(lambda: _read(long)) < 24 * fastest(lambda: _read(short))
