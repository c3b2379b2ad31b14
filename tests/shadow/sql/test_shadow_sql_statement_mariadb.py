"""What statements of MariaDB are said to do: by hand, and whatever noise stands between their words."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from timed import fastest

from perflab.shadow.sql.statement_mariadb import _read, read_mariadb, without_values


@pytest.mark.parametrize(
    ("text", "summary", "writes"),
    [
        ("SELECT * FROM `Order` -- x\n", "SELECT order", "no"),
        ("SELECT a--1 FROM t", "SELECT t", "no"),
        ("SELECT ifnull(max(a), 0), date_format(b, '%Y') FROM t LOCK IN SHARE MODE", "SELECT t", "no"),
        ("SELECT a INTO OUTFILE 'x' FROM t", "SELECT t", "no"),
        ("SELECT a INTO @a, @b FROM t", "SELECT t", "no"),
        ("SELECT shop.place_order(1)", "SELECT", "opaque"),
        ("SELECT NEXTVAL(s)", "SELECT", "opaque"),
        ("SELECT NEXT VALUE FOR s", "SELECT", "opaque"),
        ("INSERT IGNORE INTO `shop`.`t` (a) VALUES (1), (2)", "INSERT t", "rows"),
        ("insert t set a = 'it''s \\' ; --'", "INSERT t", "rows"),
        ("INSERT INTO t (a) SELECT b FROM u", "INSERT t", "rows"),
        ("INSERT INTO t VALUES (1) RETURNING id", "INSERT t", "rows"),
        ("INSERT INTO t VALUES (NEXTVAL(s))", "INSERT t", "opaque"),
        ('INSERT INTO "t" VALUES (1)', "INSERT", "opaque"),
        ("INSERT INTO t VALUES (1) ON DUPLICATE KEY UPDATE a = 1", "INSERT t", "opaque"),
        ("REPLACE INTO t VALUES (1)", "REPLACE t", "opaque"),
        ("UPDATE LOW_PRIORITY t AS x SET x.a = 1 WHERE b IN (SELECT 1)", "UPDATE t", "rows"),
        ("UPDATE a, b SET a.x = 1", "UPDATE a", "opaque"),
        ("UPDATE a JOIN b USING (id) SET a.x = b.x", "UPDATE a", "opaque"),
        ("DELETE QUICK FROM t WHERE a = 'x' ORDER BY b LIMIT 1", "DELETE t", "rows"),
        ("DELETE a, b FROM a JOIN b", "DELETE", "opaque"),
        ("DELETE FROM a USING a JOIN b", "DELETE a", "opaque"),
        ("LOAD DATA LOCAL INFILE 'x' INTO TABLE t (a)", "LOAD t", "rows"),
        ("LOAD DATA INFILE 'x' REPLACE INTO TABLE t", "LOAD t", "opaque"),
        ("SET @a = 1, autocommit = 0", "SET", "no"),
        ("SET @a = place_order(1)", "SET", "opaque"),
        ("SET STATEMENT max_statement_time = 1 FOR DELETE FROM t", "DELETE t", "rows"),
        ("DO SLEEP(1)", "DO", "no"),
        ("DO place_order(1)", "DO", "opaque"),
        ("CALL f(1)", "CALL", "opaque"),
        ("/*!50001 DELETE FROM t */", "DELETE t", "opaque"),
        ("/*M!100100 DELETE FROM t */", "DELETE t", "opaque"),
        ("XA START 'x'", "XA", "opaque"),
        ("PREPARE s FROM 'DELETE FROM t'", "PREPARE", "no"),
        ("EXECUTE s", "EXECUTE", "opaque"),
        ("USE other", "USE", "no"),
        ("CREATE TEMPORARY TABLE t (a int)", "CREATE", "no"),
        ("CREATE TABLE t AS SELECT 1", "CREATE", "opaque"),
        ("SELECT 1; DELETE FROM t", "SELECT t", "opaque"),
        ("BEGIN NOT ATOMIC DELETE FROM t; END", "BEGIN t", "opaque"),
        ("# only a comment", "EMPTY", "no"),
    ],
)  # fmt: skip
def test_statements(text: str, summary: str, writes: str) -> None:
    """Operation and table for the span, what it may write for the claim."""
    read = read_mariadb(text).statement
    assert (read.summary, read.writes) == (summary, writes)


def test_what_commits_first() -> None:
    """DDL, a new transaction, locks; not temporary tables, nor what rows are changed by."""
    for text in (
        "CREATE TABLE t (a int)",
        "truncate t",
        "BEGIN",
        "START TRANSACTION",
        "LOCK TABLES t READ",
        "GRANT SELECT ON a.* TO b",
        "FLUSH TABLES",
        "ANALYZE TABLE t",
    ):
        assert read_mariadb(text).commits, text
    for text in ("CREATE TEMPORARY TABLE t (a int)", "DROP TEMPORARY TABLE t", "INSERT INTO t VALUES (1)",
                 "SELECT 1", "COMMIT", "SET autocommit = 1"):  # fmt: skip
        assert not read_mariadb(text).commits, text


def test_the_database_of_a_written_table() -> None:
    """Named by the statement, or none."""
    assert read_mariadb("INSERT INTO `Shop`.t VALUES (1)").database == "shop"
    assert read_mariadb("UPDATE shop . t SET a = 1").database == "shop"
    assert read_mariadb("INSERT INTO t SELECT a.b FROM a").database == ""
    assert read_mariadb("SELECT * FROM shop.t").database == ""


@pytest.mark.parametrize(
    ("text", "affected", "numbers", "found_rows", "expected"),
    [
        ("INSERT INTO t VALUES (1) ON DUPLICATE KEY UPDATE a = 1", 1, [], False, ("insert", 1)),
        ("INSERT INTO t VALUES (1, (2)) ON DUPLICATE KEY UPDATE a = 1", 2, [], False, ("update", 1)),
        ("INSERT t SET a = 1 ON DUPLICATE KEY UPDATE a = 1", 2, [], True, ("update", 1)),
        ("INSERT INTO t VALUES (1) ON DUPLICATE KEY UPDATE a = 1", 0, [], False, ("insert", 0)),
        ("INSERT INTO t VALUES (1) ON DUPLICATE KEY UPDATE a = 1", 1, [], True, None),
        ("INSERT INTO t VALUES (1), (2) ON DUPLICATE KEY UPDATE a = 1", 2, [], False, None),
        ("INSERT INTO t SELECT 1 ON DUPLICATE KEY UPDATE a = 1", 1, [], False, None),
        ("UPDATE t SET a = 1", 3, [5, 3, 0], False, ("update", 3)),
        ("UPDATE t SET a = 1", 5, [5, 3, 0], True, ("update", 3)),
        ("UPDATE t SET a = 1", 5, [], True, ("update", -1)),
        ("DELETE FROM t", 5, [], True, ("delete", 5)),
        ("LOAD DATA LOCAL INFILE 'x' INTO TABLE t", 5, [], True, ("insert", 5)),
    ],
)  # fmt: skip
def test_row_counts(
    text: str, affected: int, numbers: list[int], found_rows: bool, expected: tuple[str, int] | None
) -> None:
    """2 of an upsert is one row updated; with FOUND_ROWS the message says what changed; else opaque."""
    statement, rows = read_mariadb(text).outcome(affected, numbers, found_rows=found_rows)
    if expected is None:
        assert statement.writes == "opaque"
    else:
        assert (statement.writes, statement.row_operation, rows) == ("rows", *expected)


def test_values_are_not_shown() -> None:
    """Strings and numbers are left out of what a span shows; names and places for values are not."""
    shown = read_mariadb(
        "SELECT a1, `b 2` FROM t3 WHERE c = 'se\\'cret' AND d = -4.5e6 AND e = 0xff AND f = %s"
    ).shown
    assert shown == "SELECT a1, `b 2` FROM t3 WHERE c = ? AND d = -? AND e = ? AND f = %s"
    assert "secret" not in without_values('SELECT "secret" # secret')


NOISE = st.one_of(
    st.sampled_from([" ", "\n", "\t", "-- DELETE FROM x; it's\n", "# `;'\n", "/* ; ' */ ", "/*+ hint */ "]),
    st.text("ab;'-\"`# ", max_size=8).map(lambda text: " /*" + text.replace("*/", "").lstrip("!M") + "*/ "),
)
LITERAL = st.one_of(
    st.text("ab;'-/*#`\"\n", max_size=10).map(lambda text: "'" + text.replace("'", "''") + "'"),
    st.text("ab;'-/*#`\\\n", max_size=10).map(
        lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    ),
    st.sampled_from(["'\\'; DELETE FROM x'", '"#"', "'/*!'", "%s"]),
)
PATTERNS = {
    ("INSERT", "IGNORE", "INTO", "`orders`", "VALUES", "(", None, ",", None, ")"): ("INSERT orders", "rows"),
    ("UPDATE", "orders", "SET", "a", "=", None, "WHERE", "b", "=", None): ("UPDATE orders", "rows"),
    ("DELETE", "FROM", "orders", "WHERE", "a", "=", None): ("DELETE orders", "rows"),
    ("SELECT", None, "FROM", "orders", "WHERE", "a", "=", None): ("SELECT orders", "no"),
    ("INSERT", "orders", "VALUES", "(", None, ")", ";", "SELECT", None): ("INSERT orders", "opaque"),
}


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)  # other tests share the machine
@given(st.data(), st.sampled_from(sorted(PATTERNS, key=str)))
def test_noise_changes_nothing(data: st.DataObject, pattern: tuple[str | None, ...]) -> None:
    """Comments and literals, whatever stands in them, do not change what a statement is said to do."""
    words = [data.draw(LITERAL) if word is None else word for word in pattern]
    text = data.draw(NOISE) + "".join(word + " " + data.draw(NOISE) for word in words)
    read = read_mariadb(text).statement
    assert (read.summary, read.writes) == PATTERNS[pattern]


@given(st.text(max_size=200))
def test_any_text_is_read(text: str) -> None:
    """Whatever it is, it has a name and an opinion."""
    read = read_mariadb(text).statement
    assert read.writes in ("no", "rows", "opaque")
    assert read.summary


def test_of_a_long_statement_the_head_is_read() -> None:
    """An INSERT of a megabyte costs no more than its head; it counts as opaque."""
    long = "INSERT INTO orders VALUES " + ", ".join(f"({number})" for number in range(200_000))
    read = read_mariadb(long)
    assert (read.statement.summary, read.statement.writes) == ("INSERT orders", "opaque")
    assert len(read.shown) <= 2_000


HOSTILE = {
    "a string that is not closed": lambda n: "SELECT '" + "\\'" * n,
    "a string cut in an escape": lambda n: 'SELECT "' + '\\"' * n + "\\",
    "a setting for nothing": lambda n: "SET STATEMENT" + " " * n + "a" * n,
    "names": lambda n: "SELECT `" + "a``" * n,
}


@pytest.mark.parametrize("what", HOSTILE)
def test_reading_takes_time_in_proportion_to_the_length(what: str) -> None:
    """Eight times the text takes about eight times as long, not sixty-four times."""
    short, long = (HOSTILE[what](size) for size in (1_000, 8_000))
    assert fastest(lambda: _read(long)) < 24 * fastest(lambda: _read(short))
