"""Statements of ordinary work: their results are PyMySQL's own, their spans say where they went."""

from __future__ import annotations

import contextlib
import datetime
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pymysql
import pytest
from attached_service import Service, attempt, forget, marked, noted, span_names, spans
from maria_sides import MariaSides
from pymysql.constants import CLIENT
from two_sides import TestRun

INSERT = "INSERT INTO item (note) VALUES (%s)"


def results(login: dict[str, Any], file: str) -> list[Any]:
    """Everything a service may do with PyMySQL, and all it sees of it."""
    warnings.simplefilter("ignore")
    connection = pymysql.connect(**login, local_infile=True, client_flag=CLIENT.MULTI_STATEMENTS)
    cursor = connection.cursor()
    dicts = connection.cursor(pymysql.cursors.DictCursor)
    streaming = connection.cursor(pymysql.cursors.SSCursor)

    def sent(query: Any, args: Any = None, using: Any = cursor) -> Callable[[], Any]:
        return lambda: [using.execute(query, args), using.rowcount, using.lastrowid is None, using.fetchall()]

    ways: list[Callable[[], Any]] = [
        sent("SELECT 1, 'x', 1.5, NULL, CAST('2026-01-01' AS date)"),
        sent("SELECT %(a)s + 0 AS a", {"a": 7}, dicts),
        sent("SELECT %s, %s", ("it's; \\", b"\x00\xff")),
        sent("SELECT 1, %s"),
        sent("SELECT %s", ()),
        sent("SELECT %s %s", ("one",)),
        sent(None),
        sent(7),
        lambda: cursor.execute(),
        lambda: cursor.execute(query="SELECT %s", args=[datetime.date(2026, 1, 1)]),
        cursor.fetchone,
        sent(b"SELECT 'bytes'"),
        sent("INSERT INTO item (note) VALUES ('a') RETURNING note"),
        lambda: cursor.executemany(INSERT, [["b"], ["c"]]),
        lambda: cursor.executemany(INSERT, []),
        lambda: cursor.executemany("UPDATE item SET note = %s WHERE note = %s", (x for x in [["d", "b"]])),
        lambda: cursor.executemany(INSERT, [["e", "too many"]]),
        lambda: cursor.mogrify(INSERT, ["it's"]),
        sent("UPDATE item SET note = 'd'"),
        sent("no such statement"),
        sent("SELECT * FROM nowhere"),
        sent("INSERT INTO item (note) VALUES (NULL)"),
        sent("INSERT INTO child VALUES (5)"),
        sent("INSERT INTO stock VALUES (1, 2) ON DUPLICATE KEY UPDATE amount = 3"),
        sent("REPLACE INTO stock VALUES (1, 2), (2, 2)"),
        sent("INSERT IGNORE INTO stock VALUES (1, 2)"),
        connection.show_warnings,
        connection.commit,
        lambda: cursor.callproc("add_item", ["called"]),
        sent("SELECT @_add_item_0"),
        sent("SELECT 1; SELECT 2; INSERT INTO item (note) VALUES ('multi')"),
        cursor.nextset,
        cursor.fetchall,
        cursor.nextset,
        cursor.nextset,
        sent("SELECT note FROM item ORDER BY id", None, streaming),
        lambda: streaming.execute("SELECT note FROM item ORDER BY id"),
        streaming.fetchone,
        lambda: cursor.execute("SELECT 'while unbuffered'"),
        streaming.fetchone,
        streaming.close,
        sent(f"LOAD DATA LOCAL INFILE '{file}' INTO TABLE item (note)"),
        sent("LOAD DATA LOCAL INFILE '/no/such/file' INTO TABLE item (note)"),
        connection.rollback,
        connection.begin,
        lambda: connection.autocommit(True),
        connection.get_autocommit,
        lambda: connection.query("SELECT 5"),
        lambda: connection.query(sql="SELECT 5", unbuffered=False),
        lambda: connection.affected_rows(),
        lambda: connection.insert_id() >= 0,
        lambda: connection.select_db("mysql"),
        lambda: connection.select_db(login["database"]),
        lambda: connection.set_character_set("latin1"),
        lambda: connection.ping(False),
        lambda: connection.escape("it's"),
        lambda: connection.kill("no number"),
        lambda: connection.kill(2**31 - 1),
        lambda: connection.connect(),
        sent("SELECT count(*) FROM item"),
        cursor.close,
        lambda: cursor.execute("SELECT 1"),
        connection.close,
        connection.close,
        connection.commit,
        lambda: connection.ping(reconnect=False),
        lambda: connection.query("SELECT 1"),
        lambda: connection.cursor().execute("SELECT 1"),
        lambda: connection.ping(reconnect=True),
        lambda: connection.open,
        connection.close,
        lambda: pymysql.connect(host="127.0.0.1", port=1),
        lambda: pymysql.connect(**{**login, "password": "wrong"}),
        lambda: pymysql.connect(**{**login, "port": "3306"}),
        lambda: pymysql.connect(nonsense=1),
    ]
    return [_told(attempt(way)) for way in ways]


def _told(found: Any) -> Any:
    if isinstance(found, (list, tuple)):
        return [_told(each) for each in found]
    return found if isinstance(found, (str, int, float, dict, type(None))) else repr(found)


def test_ordinary_work_sees_the_same_with_and_without_the_agent(
    maria_service: Service, maria_plain: Service, maria: MariaSides, maria_run: TestRun, tmp_path: Path
) -> None:
    """Results, errors and their texts of every way of PyMySQL are its own."""
    (tmp_path / "rows").write_text("loaded\nmore\n")
    file = str(tmp_path / "rows")
    maria.empty()
    without = maria_plain.call(results, maria.login, file)
    maria.empty()
    with_it = maria_service.call(results, maria.login, file)
    for number, (expected, found) in enumerate(zip(without, with_it, strict=True)):
        assert found == expected, number
    assert len(without) > 60


def signatures() -> Any:
    import inspect

    names = ("connect", "query", "commit", "rollback", "begin", "close", "ping", "select_db", "autocommit")
    found = [str(inspect.signature(getattr(pymysql.connections.Connection, name))) for name in names]
    return [*found, pymysql.connect is pymysql.connections.Connection, pymysql.Connect is pymysql.connect]


def test_the_driver_looks_as_it_did(maria_service: Service, maria_plain: Service, maria: MariaSides) -> None:
    """Signatures, and that ``connect`` is the class."""
    assert maria_service.call(signatures) == maria_plain.call(signatures)


class Stubborn(bytearray):
    """A text that PyMySQL can send and that the agent cannot read."""

    def __bytes__(self) -> bytes:
        raise RuntimeError("not for you")


def send_stubborn(login: dict[str, Any]) -> list[Any]:
    forget()
    with pymysql.connect(**login) as connection:
        connection.cursor().execute(Stubborn(b"INSERT INTO item (note) VALUES ('stubborn')"))
        connection.commit()
    return [noted("step_aside"), span_names()]


def test_a_hook_that_fails_on_ordinary_work_steps_aside(
    maria_service: Service, maria: MariaSides, maria_run: TestRun
) -> None:
    """The statement is sent, the failure is counted."""
    aside, names = maria_service.call(send_stubborn, maria.login)
    assert aside == [["sql: query: RuntimeError"]]
    assert names == ["COMMIT"]
    assert maria.notes("production") == ["stubborn"]


def spans_of(login: dict[str, Any], mark: dict[str, Any] | None) -> list[Any]:
    forget()
    with marked(mark), pymysql.connect(**login) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT amount FROM stock WHERE id = %s", [1])
        connection.begin()
        cursor.executemany(INSERT, [["a secret"], ["another"]])
        cursor.execute("INSERT INTO item (note) VALUES ('a secret', 4711)".replace(", 4711", ""))
        cursor.callproc("add_item", ["a secret"])
        connection.commit()
        with contextlib.suppress(pymysql.MySQLError):
            cursor.execute("UPDATE nowhere SET a = 4711")
        connection.rollback()
        connection.select_db(connection.db.decode())
    return [
        [
            span.name,
            span.attributes.get("db.system.name"),
            span.attributes.get("db.namespace"),
            span.attributes.get("db.query.text", ""),
            span.attributes.get("user_agent.synthetic.type"),
            span.attributes.get("error.type"),
        ]
        for span in spans
    ]


@pytest.mark.parametrize("side", ["production", "shadow"])
def test_every_statement_has_a_span(
    side: str, maria_service: Service, maria: MariaSides, maria_run: TestRun
) -> None:
    """Named after operation and table, with the database it really went to, the mark, and no values."""
    # When
    is_marked = side == "shadow"
    told = maria_service.call(spans_of, maria.login, maria_run.mark() if is_marked else None)
    # Then
    where = ["mariadb", maria.shadow_database if is_marked else maria.production_database]
    synthetic = "test" if is_marked else None
    assert [each[:1] + each[3:4] + each[5:] for each in told] == [
        ["SELECT stock", "SELECT amount FROM stock WHERE id = %s", None],
        ["BEGIN", "", None],
        ["INSERT item", INSERT, None],
        ["INSERT item", "INSERT INTO item (note) VALUES (?)", None],
        ["SET", "SET @`_add_item_0`=?", None],
        ["CALL", "CALL `add_item`(@`_add_item_0`)", None],
        ["COMMIT", "", None],
        ["UPDATE nowhere", "UPDATE nowhere SET a = ?", "ProgrammingError"],
        ["ROLLBACK", "", None],
    ]
    assert {tuple(each[1:3]) for each in told} == {tuple(where)}
    assert {each[4] for each in told} == {synthetic}
    notes = ["a secret", "a secret", "a secret", "another"]
    assert (maria.notes("production"), maria.notes("shadow")) == (([], notes) if is_marked else (notes, []))
