"""SQLite: what an object keeps when ordinary work takes its connection over, and which it may not."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from typing import Any

import pytest
from attached_service import attempt, marked
from sqlite_sides import FileSides, file_sides
from two_sides import Sides, TestRun

Mark = dict[str, Any] | None
ADD = "INSERT INTO note (text) VALUES (?)"
LOST = "OperationalError: perflab: this connection belonged to a load test; it was closed"


@pytest.fixture(scope="module")
def opened(sides: Sides, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with file_sides(sides, tmp_path_factory.mktemp("files")) as made:
        yield made


@pytest.fixture
def files(opened: FileSides) -> FileSides:
    opened.restore()
    return opened


class Slotted(sqlite3.Connection):
    """A class with a slot."""

    __slots__ = ("in_a_slot",)


class Mine(Slotted):
    """A service's own class."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self.of_its_own: list[str] = []


def keep_settings(path: str, mark: Mark) -> Any:
    with marked(mark):
        connection = sqlite3.connect(path, factory=Mine, timeout=3)
        connection.of_its_own.append("kept")
        connection.in_a_slot = "kept, too"
        connection.row_factory, connection.text_factory = sqlite3.Row, bytes
        connection.isolation_level = "IMMEDIATE"
        cursor = connection.cursor()
        cursor.execute(ADD, ["open"])
    inside = connection.in_transaction
    cursor.execute(ADD, ["user"])
    row = connection.execute("SELECT text FROM note").fetchone()
    connection.commit()
    said = [inside, dict(row)["text"].decode(), connection.of_its_own, connection.in_a_slot,
            connection.isolation_level, cursor.connection is connection]  # fmt: skip
    connection.close()
    return said


def test_an_object_keeps_its_settings(files: FileSides, run: TestRun) -> None:
    """Factories, level and what a derived class added stay; cursors go on; what was open is gone."""
    said = files.service.call(keep_settings, str(files.production), run.mark())
    assert said == [True, "user", ["kept"], "kept, too", "IMMEDIATE", True]
    assert (files.texts("production"), files.texts("shadow")) == (["user"], [])


CHANGES: dict[str, Callable[[Any], Any]] = {
    "a function": lambda connection: connection.create_function("mine", 0, lambda: 1),
    "a collation": lambda connection: connection.create_collation("mine", lambda a, b: 0),
    "an authorizer": lambda connection: connection.set_authorizer(lambda *_: 0),
    "a trace": lambda connection: connection.set_trace_callback(lambda _: None),
    "a temporary table": lambda connection: connection.execute("CREATE TEMP TABLE mine (id)"),
    "a pragma in a script": lambda connection: connection.executescript("SELECT 1; PRAGMA foreign_keys = 1"),
}


def change(what: str, path: str, mark: Mark) -> Any:
    with marked(mark):
        connection = sqlite3.connect(path)
        CHANGES[what](connection)
    return attempt(lambda: connection.execute(ADD, ["user"]))


@pytest.mark.parametrize("what", CHANGES)
def test_what_only_that_connection_had_is_lost(files: FileSides, run: TestRun, what: str) -> None:
    """Functions, callbacks and settings would be missing in silence."""
    assert files.service.call(change, what, str(files.production), run.mark()) == LOST
    assert files.texts("production") == []


def use_memory(mark: Mark) -> Any:
    with marked(mark):
        connection = sqlite3.connect(":memory:")
        connection.execute("CREATE TABLE a (id)")
    return attempt(lambda: connection.execute("SELECT * FROM a"))


def test_a_database_in_memory_is_nowhere_else(files: FileSides, run: TestRun) -> None:
    """It is lost, since another one would be empty."""
    assert files.service.call(use_memory, run.mark()) == LOST


def in_another_thread(path: str, mark: Mark) -> Any:
    said: list[Any] = []
    with marked(mark):
        connection = sqlite3.connect(path)

    def elsewhere() -> None:
        said.append(attempt(lambda: connection.execute(ADD, ["user"])))

    with marked(None):
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    here = attempt(lambda: connection.execute(ADD, ["user"]).rowcount)
    connection.commit()
    connection.close()
    return [said[0].split(":")[0], here, attempt(lambda: connection.execute("SELECT 1"))]


def test_a_connection_stays_its_threads(files: FileSides, run: TestRun) -> None:
    """Another thread gets the driver's own error, and takes nothing over; a closed one stays closed."""
    said, here, closed = files.service.call(in_another_thread, str(files.production), run.mark())
    assert (said, here) == ("ProgrammingError", 1)
    assert closed == "ProgrammingError: Cannot operate on a closed database."
    assert files.texts("production") == ["user"]
