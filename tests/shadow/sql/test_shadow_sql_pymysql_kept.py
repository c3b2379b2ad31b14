"""PyMySQL: what an object keeps, and what it gets anew, when ordinary work takes its connection over."""

from __future__ import annotations

import warnings
from typing import Any

import pymysql
import pymysql.cursors
import pytest
from attached_service import Service, attempt, marked
from maria_sides import APP, MariaSides
from two_sides import TestRun

Mark = dict[str, Any] | None
ADD = "INSERT INTO item (note) VALUES (%s)"
LOST = "OperationalError: (2013, 'perflab: this connection belonged to a load test; it was closed')"


class Mine(pymysql.connections.Connection):
    """A service's own class."""

    of_its_own = ""


def keep_settings(login: dict[str, Any], mark: Mark) -> Any:
    options = {"init_command": "SET @mine = 7", "sql_mode": "ANSI", "charset": "latin1"}
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with marked(mark):
            connection = Mine(**login, **options, cursorclass=pymysql.cursors.DictCursor)
            connection.autocommit(True)
            connection.of_its_own = "kept"
            cursor = connection.cursor()
            cursor.execute(ADD, ["marked"])
            before = connection.thread_id()
            connection.begin()
            cursor.execute(ADD, ["open"])
        cursor.execute(ADD, ["user"])
        cursor.execute("SELECT @mine AS mine, @@autocommit AS auto, @@character_set_client AS chars,"
                       " user() AS who, @@sql_mode LIKE '%ANSI%' AS ansi")  # fmt: skip
        row = cursor.fetchone()
        said = [row, connection.of_its_own, connection.open, connection.user.decode(), connection.db.decode(),
                connection.thread_id() != before, cursor.connection is connection]  # fmt: skip
        connection.ping(reconnect=False)
        connection.close()
    return [*said, [str(one.message) for one in warned], attempt(connection.close)]


def test_an_object_keeps_its_settings(maria_service: Service, maria: MariaSides, maria_run: TestRun) -> None:
    """Autocommit, character set, modes and first statements are set again; cursors and subclasses go on."""
    said = maria_service.call(keep_settings, maria.login, maria_run.mark())
    row, own, is_open, user, database, another, same, warned, closed_again = said
    assert {**row, "who": row["who"].split("@")[0]} == {
        "mine": 7, "auto": 1, "chars": "latin1", "who": APP, "ansi": 1
    }  # fmt: skip
    assert (own, is_open, user, database) == ("kept", True, APP, maria.production_database)
    assert (another, same, warned, closed_again) == (True, True, [], "Error: Already closed")
    assert (maria.notes("production"), maria.notes("shadow")) == (["user"], ["marked"])


def use_what_is_lost(what: str, login: dict[str, Any], mark: Mark) -> Any:
    with marked(mark):
        connection = pymysql.connect(**login)
        cursor = connection.cursor(pymysql.cursors.SSCursor)
        if what == "an answer":
            cursor.execute("SELECT 1 UNION SELECT 2")
        elif what == "a database":
            connection.select_db("maria_shadow")
        elif what == "backslashes":
            connection.server_status |= 512  # as if the shadow's server read strings otherwise
        else:
            connection.close()
    said = attempt(lambda: connection.cursor().execute(ADD, ["user"]))
    cursor._result = None  # nothing more is read
    return said


@pytest.mark.parametrize("what", ["an answer", "a database", "backslashes", "closed"])
def test_what_would_not_be_the_same_is_lost(
    maria_service: Service, maria: MariaSides, maria_run: TestRun, what: str
) -> None:
    """An answer half read, another database, strings read otherwise; one its service closed stays closed."""
    said = maria_service.call(use_what_is_lost, what, maria.login, maria_run.mark())
    assert said == ("InterfaceError: (0, '')" if what == "closed" else LOST)
    assert maria.notes("production") == []


def break_before(login: dict[str, Any], mark: Mark) -> Any:
    with marked(mark):
        connection = pymysql.connect(**login, autocommit=True)
        attempt(lambda: connection.kill(connection.thread_id()))
        broken = attempt(lambda: connection.cursor().execute("SELECT 1"))
    open_still = connection.open
    said = attempt(lambda: connection.cursor().execute(ADD, ["user"]))
    connection.close()
    return [str(broken), open_still, said]


def test_a_shadow_that_broke_does_no_harm(
    maria_service: Service, maria: MariaSides, maria_run: TestRun
) -> None:
    """What the shadow's server ended goes on in production."""
    broken, open_still, said = maria_service.call(break_before, maria.login, maria_run.mark())
    assert "Error" in broken
    assert (open_still, said) == (False, 1)
    assert maria.notes("production") == ["user"]
