"""What ordinary transactions claim, of every way of PyMySQL, against production's own binlog."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import maria_binlog
import pymysql
import pytest
from attached_service import Service, forget, marked, noted
from maria_sides import MariaSides
from pymysql.constants import CLIENT
from two_sides import TestRun

from perflab.shadow.audit.attribution import Change, Claim, attribute

INSERT = "INSERT INTO item (note) VALUES (%s)"
Work = Callable[[Any, Any], None]


def commit(connection: Any, cursor: Any) -> None:
    cursor.execute(INSERT, ["a"])
    cursor.execute(INSERT, ["b"])
    cursor.execute("UPDATE item SET note = CONCAT(note, '!')")
    cursor.execute("DELETE FROM item WHERE note = 'b!'")
    connection.commit()


def rollback(connection: Any, cursor: Any) -> None:
    cursor.execute(INSERT, ["a"])
    connection.rollback()
    cursor.execute(INSERT, ["b"])
    connection.commit()


def reads(connection: Any, cursor: Any) -> None:
    cursor.execute("SELECT count(*), lower(max(note)) FROM item WHERE id IN (1, 2)")
    cursor.execute("UPDATE item SET note = 'none' WHERE id = -1")
    connection.commit()


def failed_statement(connection: Any, cursor: Any) -> None:
    cursor.execute(INSERT, ["a"])
    with contextlib.suppress(pymysql.MySQLError):
        cursor.execute("INSERT INTO stock VALUES (1, -1)")
    with contextlib.suppress(pymysql.MySQLError):
        cursor.execute("INSERT INTO child VALUES (9)")
    connection.commit()


def savepoints(connection: Any, cursor: Any) -> None:
    cursor.execute("START TRANSACTION")
    cursor.execute("SAVEPOINT one")
    cursor.execute(INSERT, ["a"])
    cursor.execute("SAVEPOINT `two`")
    cursor.execute(INSERT, ["b"])
    cursor.execute("ROLLBACK TO SAVEPOINT one")
    cursor.execute(INSERT, ["c"])
    cursor.execute("RELEASE SAVEPOINT one")
    cursor.execute("COMMIT")


def implicit_commits(connection: Any, cursor: Any) -> None:
    cursor.execute(INSERT, ["a"])
    cursor.execute("CREATE OR REPLACE TABLE made (id int)")
    cursor.execute(INSERT, ["b"])
    connection.begin()
    cursor.execute(INSERT, ["c"])
    cursor.execute("START TRANSACTION")
    cursor.execute(INSERT, ["d"])
    cursor.execute("LOCK TABLES item WRITE")
    cursor.execute("UNLOCK TABLES")
    cursor.execute(INSERT, ["e"])
    connection.rollback()
    cursor.execute("DROP TABLE made")


def commit_and_chain(connection: Any, cursor: Any) -> None:
    cursor.execute(INSERT, ["a"])
    cursor.execute("COMMIT AND CHAIN")
    cursor.execute(INSERT, ["b"])
    cursor.execute("ROLLBACK AND CHAIN")
    cursor.execute(INSERT, ["c"])
    connection.commit()


def many(connection: Any, cursor: Any) -> None:
    cursor.executemany(INSERT, [["a"], ["b"], ["c"]])
    cursor.max_stmt_length = 60
    cursor.executemany(INSERT, [["d" * 20], ["e" * 20], ["f" * 20]])
    cursor.executemany("UPDATE item SET note = %s WHERE note = %s", [["x", "a"], ["y", "b"]])
    connection.commit()


def upserts(connection: Any, cursor: Any) -> None:
    upsert = "INSERT INTO stock VALUES (%s, %s) ON DUPLICATE KEY UPDATE amount = VALUES(amount)"
    for values in ([1, 2], [1, 3], [1, 3], [2, 5]):
        cursor.execute(upsert, values)
        connection.commit()
    cursor.executemany(upsert, [[1, 9], [3, 9]])
    connection.commit()
    cursor.execute("REPLACE INTO stock VALUES (1, 4)")
    connection.commit()
    cursor.execute("INSERT IGNORE INTO stock VALUES (1, 4), (7, 1), (8, 1)")
    connection.commit()


def returning(connection: Any, cursor: Any) -> None:
    cursor.execute("INSERT INTO item (note) VALUES ('a'), ('b') RETURNING id, note")
    assert len(cursor.fetchall()) == 2
    cursor.execute("DELETE FROM item WHERE note = 'a' RETURNING note")
    connection.commit()
    connection.autocommit(True)
    cursor.execute("INSERT INTO item (note) VALUES ('c') RETURNING id")


def found_rows(connection: Any, cursor: Any) -> None:
    connection.client_flag |= CLIENT.FOUND_ROWS
    connection.connect()
    cursor.execute("INSERT INTO stock VALUES (1, 1), (2, 2)")
    cursor.execute("UPDATE stock SET amount = 2")
    connection.commit()
    cursor.execute("INSERT INTO stock VALUES (2, 2) ON DUPLICATE KEY UPDATE amount = 2")
    connection.commit()


def streaming(connection: Any, cursor: Any) -> None:
    cursor.execute("INSERT INTO item (note) SELECT seq FROM seq_1_to_4")
    with connection.cursor(pymysql.cursors.SSCursor) as unbuffered:
        unbuffered.execute("SELECT note FROM item")
        assert len(unbuffered.fetchmany(3)) == 3
    connection.commit()
    with connection.cursor(pymysql.cursors.SSCursor) as unbuffered:
        unbuffered.execute(INSERT, ["x"])
        unbuffered.execute("INSERT INTO item (note) VALUES ('c') RETURNING id")
        assert len(unbuffered.fetchall()) == 1
    connection.commit()


def odd_texts(connection: Any, cursor: Any) -> None:
    cursor.execute("insert /* hm; */ into `item` (note) # a note\n values ('it''s; \\' x') -- done")
    cursor.execute(b"INSERT LOW_PRIORITY INTO item SET note = 'b'")
    cursor.execute(r"UPDATE `maria_shop`.`item` SET note = 'x' WHERE note = 'b'")
    connection.commit()
    cursor.execute("/*!50001 INSERT INTO item (note) VALUES ('executed') */")
    connection.commit()
    cursor.execute("SET STATEMENT max_statement_time = 5 FOR INSERT INTO item (note) VALUES ('c')")
    connection.commit()


def many_tables(connection: Any, cursor: Any) -> None:
    cursor.execute(INSERT, ["a"])
    cursor.execute("INSERT INTO stock VALUES (1, 1)")
    connection.commit()
    cursor.execute("UPDATE item JOIN stock SET note = 'b', amount = 2")
    connection.commit()
    cursor.execute("DELETE item, stock FROM item JOIN stock")
    connection.commit()


def routines(connection: Any, cursor: Any) -> None:
    cursor.callproc("add_item", ["a"])
    connection.commit()
    cursor.execute("SELECT noted('a')")
    connection.commit()
    cursor.execute("PREPARE s FROM 'INSERT INTO item (note) VALUES (?)'")
    cursor.execute("SET @a = 'b'")
    cursor.execute("EXECUTE s USING @a")
    connection.commit()


def sequences(connection: Any, cursor: Any) -> None:
    cursor.execute("SELECT NEXTVAL(numbers)")
    connection.commit()
    cursor.execute("SELECT SETVAL(numbers, 100000)")
    connection.commit()


def temporary(connection: Any, cursor: Any) -> None:
    cursor.execute("CREATE TEMPORARY TABLE scratch (id int)")
    cursor.execute("INSERT INTO scratch VALUES (1), (2)")
    cursor.execute(INSERT, ["a"])
    cursor.execute("DROP TEMPORARY TABLE scratch")
    connection.commit()


def multi_statements(connection: Any, cursor: Any) -> None:
    connection.client_flag |= CLIENT.MULTI_STATEMENTS
    connection.connect()
    cursor.execute("INSERT INTO item (note) VALUES ('a'); UPDATE item SET note = 'b'; SELECT 1")
    while cursor.nextset():
        pass
    connection.commit()
    connection.autocommit(True)
    cursor.execute("INSERT INTO item (note) VALUES ('c'); INSERT INTO item (note) VALUES ('d')")
    cursor.execute("SELECT 1")


def autocommit(connection: Any, cursor: Any) -> None:
    cursor.execute(INSERT, ["z"])
    connection.autocommit(True)
    cursor.execute(INSERT, ["a"])
    with contextlib.suppress(pymysql.MySQLError):
        cursor.execute(INSERT, [None])
    cursor.execute("INSERT INTO item (note) VALUES ('b'), ('c')")
    connection.begin()
    cursor.execute(INSERT, ["g"])
    cursor.execute(INSERT, ["h"])
    connection.commit()
    cursor.execute("SET autocommit = 0")
    cursor.execute(INSERT, ["i"])
    cursor.execute("SET autocommit = 1")


def two_phases(connection: Any, cursor: Any) -> None:
    connection.autocommit(True)
    cursor.execute("XA START 'maria'")
    cursor.execute(INSERT, ["xa"])
    cursor.execute("XA END 'maria'")
    cursor.execute("XA PREPARE 'maria'")
    cursor.execute("XA COMMIT 'maria'")
    cursor.execute("XA START 'maria'")
    cursor.execute(INSERT, ["one phase"])
    cursor.execute("XA END 'maria'")
    cursor.execute("XA COMMIT 'maria' ONE PHASE")


def elsewhere(connection: Any, cursor: Any) -> None:
    connection.select_db("test_elsewhere")
    cursor.execute("INSERT INTO maria_shop.item (note) VALUES ('from elsewhere')")
    connection.commit()
    cursor.execute("USE maria_shop")
    cursor.execute(INSERT, ["back"])
    connection.commit()
    cursor.execute(INSERT, ["across"])
    cursor.execute("USE test_elsewhere")
    connection.commit()


def truncated(connection: Any, cursor: Any) -> None:
    cursor.execute("INSERT INTO stock VALUES (1, 1)")
    cursor.execute("TRUNCATE stock")
    cursor.execute("CREATE OR REPLACE TABLE made SELECT seq FROM seq_1_to_3")
    cursor.execute("DROP TABLE made")


SCENARIOS: dict[str, Work] = {
    work.__name__: work
    for work in (
        commit, rollback, reads, failed_statement, savepoints, implicit_commits, commit_and_chain, many,
        upserts, returning, found_rows, streaming, odd_texts, many_tables, routines, sequences, temporary,
        multi_statements, autocommit, two_phases, elsewhere, truncated,
    )
}  # fmt: skip
ONE, OPAQUE = [["item", "insert", 1]], "opaque"
EXACT: dict[str, list[Any]] = {
    "commit": [[["item", "delete", 1], ["item", "insert", 2], ["item", "update", 2]]],
    "rollback": [ONE],
    "reads": [],
    "failed_statement": [ONE],
    "savepoints": [ONE],
    "implicit_commits": [ONE, OPAQUE, ONE, ONE, ONE, OPAQUE],
    "commit_and_chain": [ONE, ONE],
    "many": [[["item", "insert", 6], ["item", "update", 2]]],
    "returning": [[["item", "delete", 1], ["item", "insert", 2]], ONE],
    "odd_texts": [[["item", "insert", 2], ["item", "update", 1]], OPAQUE, ONE],
    "temporary": [ONE],
    "autocommit": [ONE, ONE, [["item", "insert", 2]], [["item", "insert", 2]], ONE],
    "upserts": [
        [["stock", "insert", 1]], [["stock", "update", 1]], [["stock", "insert", 1]], OPAQUE, OPAQUE,
        [["stock", "insert", 2]],
    ],
    "found_rows": [[["stock", "insert", 2], ["stock", "update", 1]], OPAQUE],
    "streaming": [[["item", "insert", 4]], OPAQUE],
}  # fmt: skip


def claims_of(name: str, login: dict[str, Any]) -> list[Any]:
    forget()
    connection = pymysql.connect(**login)
    with connection, connection.cursor() as cursor:
        SCENARIOS[name](connection, cursor)
    assert noted("step_aside") == []
    return noted("claim")


@pytest.fixture(autouse=True, scope="module")
def _another_database(maria: MariaSides) -> None:
    maria.query("production", "CREATE DATABASE IF NOT EXISTS test_elsewhere")
    maria.query("production", "GRANT ALL ON test_elsewhere.* TO maria_app@'127.0.0.1'")


@pytest.mark.parametrize("name", SCENARIOS)
def test_claims_account_for_production_s_own_log(
    name: str, maria_service: Service, maria: MariaSides, maria_run: TestRun
) -> None:
    """Read from the binlog: no transaction without a claim; exact where the driver can count."""
    # Given
    since = maria_binlog.position(maria.server)
    # When
    claims = maria_service.call(claims_of, name, maria.login)
    logged = maria_binlog.changes(maria.server, since, maria.production_database)
    # Then: every claim that is exact is one transaction of the log, and opaque ones cover the rest
    told = [each if each == OPAQUE else json.loads(each) for _, each, _, _ in claims]
    assert {store for store, _, _, _ in claims} <= {"orders"}
    found = attribute(
        [Change(0, (json.dumps(change),)) for change in logged],
        [Claim(each, 0, 0, opaque=each == OPAQUE) for _, each, _, _ in claims],
        slack_ns=0,
    )
    assert found.unattributed == (), (told, logged)
    exact = [each for each in told if each != OPAQUE]
    assert all(each in logged for each in exact), (exact, logged)
    if name in EXACT:
        assert told == EXACT[name], logged


def test_without_a_live_run_nothing_is_claimed(
    maria_service: Service, maria: MariaSides, maria_run: TestRun
) -> None:
    """Claims are for the audit of a run; between runs the ledger stays empty."""
    maria_run.remove()
    assert maria_service.call(claims_of, "commit", maria.login) == []


def lose_connection(login: dict[str, Any], admin: dict[str, Any], how: str) -> Any:
    forget()
    connection = pymysql.connect(**login, autocommit=how == "alone")
    cursor = connection.cursor()
    if how != "alone":
        cursor.execute(INSERT, ["x"])
    with pymysql.connect(**admin) as other:
        other.kill(connection.thread_id())
    with contextlib.suppress(pymysql.MySQLError):
        if how == "commit":
            connection.commit()
        else:
            cursor.execute(INSERT, ["y"])
    return [told for _, told, _, _ in noted("claim")]


def test_what_may_have_been_done_when_the_connection_was_lost_is_claimed(
    maria_service: Service, maria: MariaSides, maria_run: TestRun
) -> None:
    """A COMMIT, and a statement outside a transaction; a transaction that was lost is not."""
    user, password = maria.server.admin_url[len("mariadb://") :].split("@")[0].split(":")
    admin = {**maria.login, "user": user, "password": password}
    assert maria_service.call(lose_connection, maria.login, admin, "commit") == ['[["item", "insert", 1]]']
    assert maria_service.call(lose_connection, maria.login, admin, "alone") == [OPAQUE]
    assert maria_service.call(lose_connection, maria.login, admin, "within") == []


def deadlock(login: dict[str, Any]) -> Any:
    import threading

    with pymysql.connect(**login) as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO stock VALUES (1, 1), (2, 2)")
        connection.commit()
    forget()
    both = threading.Barrier(2)
    failed: list[int] = []

    def work(first: int, second: int) -> None:
        with pymysql.connect(**login) as connection, connection.cursor() as cursor:
            cursor.execute("UPDATE stock SET amount = amount + 10 WHERE id = %s", [first])
            both.wait(20)
            try:
                cursor.execute("UPDATE stock SET amount = amount + 10 WHERE id = %s", [second])
            except pymysql.MySQLError as error:
                failed.append(error.args[0])
            connection.commit()

    threads = [threading.Thread(target=work, args=pair) for pair in ((1, 2), (2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [failed, [told for _, told, _, _ in noted("claim")]]


def test_a_deadlock_took_the_transaction_back(
    maria_service: Service, maria: MariaSides, maria_run: TestRun
) -> None:
    """Its COMMIT afterwards commits nothing and claims nothing."""
    failed, told = maria_service.call(deadlock, maria.login)
    assert failed == [1213]
    assert told == ['[["stock", "update", 2]]']


def all_scenarios(login: dict[str, Any], mark: dict[str, Any]) -> Any:
    forget()
    for name in sorted(set(SCENARIOS) - {"elsewhere", "odd_texts"}):
        with marked(mark):
            connection = pymysql.connect(**login)
            with connection, connection.cursor() as cursor:
                cursor.execute("DELETE FROM stock")
                connection.commit()
                SCENARIOS[name](connection, cursor)
    return [noted("claim"), noted("refuse"), sorted({tuple(told) for told in noted("session")})]


def test_every_way_of_marked_work_stays_on_the_shadow(
    maria_service: Service, maria: MariaSides, maria_run: TestRun
) -> None:
    """The same scenarios, marked: nothing claimed, nothing refused, production not touched."""
    # Given
    since = maria_binlog.position(maria.server)
    # When
    claims, refused, sessions = maria_service.call(all_scenarios, maria.login, maria_run.mark())
    # Then
    assert (claims, refused) == ([], [])
    assert sessions == [["orders", maria.shadow_user, maria.shadow_database, True]]
    assert maria_binlog.changes(maria.server, since, maria.production_database) == []
    assert len(maria_binlog.changes(maria.server, since, maria.shadow_database)) > 20
    assert maria.query("shadow", "SELECT DISTINCT SUBSTRING_INDEX(owner, '@', 1) FROM item") == [
        (maria.shadow_user,)
    ]
