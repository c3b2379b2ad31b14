"""sqlite3 routed on real files: the shadow's file for marked work, production's for everybody else."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
from attached_service import Service, attempt, forget, is_refused, kept, marked, noted, poll
from sqlite_sides import FileSides, file_sides
from two_sides import Sides, TestRun

ADD = "INSERT INTO note (text) VALUES (?)"
UNKNOWN = "this database is not one of the target's stores"
FILES = ["hard.db", "shadow of it.db", "shop.db", "soft.db"]
FROM_BEFORE = "this connection was opened for production before the marked request"
CANNOT_TELL = "which file this is cannot be told"
Mark = dict[str, Any] | None


@pytest.fixture(scope="module")
def opened(sides: Sides, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileSides]:
    with file_sides(sides, tmp_path_factory.mktemp("files")) as made:
        yield made


@pytest.fixture
def service(opened: FileSides) -> Service:
    return opened.service


@pytest.fixture
def files(opened: FileSides) -> FileSides:
    opened.restore()
    return opened


def add(path: Any, mark: Mark, text: str, options: dict[str, Any]) -> Any:
    with marked(mark):

        def adding() -> Any:
            with contextlib.closing(sqlite3.connect(path, **options)) as connection, connection:
                return connection.execute(ADD, [text]).rowcount

        return attempt(adding)


def add_in(directory: str, *arguments: Any) -> Any:
    os.chdir(directory)
    return add(*arguments)


def test_marked_work_opens_the_shadow(service: Service, files: FileSides, run: TestRun) -> None:
    """The same path leads marked work to the shadow's file, and everybody else to production's."""
    assert service.call(add, str(files.production), run.mark(), "marked", {}) == 1
    assert service.call(add, str(files.production), None, "ordinary", {}) == 1
    assert (files.texts("shadow"), files.texts("production")) == (["marked"], ["ordinary"])


def test_however_the_file_is_named(service: Service, files: FileSides, run: TestRun) -> None:
    """Relative, by links, as a URI, and the shadow by its own name: all are the known file."""
    there, options = str(files.production), {"uri": True}
    names: list[tuple[str, dict[str, Any]]] = [
        ("shop.db", {}),
        (f"{files.directory}/../{files.directory.name}/shop.db", {"timeout": 1, "isolation_level": None}),
        (str(files.directory / "soft.db"), {"check_same_thread": False, "cached_statements": 5}),
        (str(files.directory / "hard.db"), {}),
        ("file:shop.db", options),
        (f"file:{there}?mode=rwc&cache=private", options),
        (f"file://localhost{there}?mode=rw&psow=0#part", options),
        (f"file:{there.replace('shop', 'sh%6Fp')}", options),
        (str(files.shadow), {}),
    ]
    for number, (name, given) in enumerate(names):
        said = service.call(add_in, str(files.directory), name, run.mark(), str(number), given)
        assert said == 1, (name, said)
    assert files.texts("shadow") == [str(number) for number in range(len(names))]
    assert files.texts("production") == []
    said = service.call(add, f"file:{there}?mode=ro", run.mark(), "x", options)
    assert said == "OperationalError: attempt to write a readonly database"


def test_any_other_file_is_refused(service: Service, files: FileSides, run: TestRun) -> None:
    """Nothing is opened, so nothing is made; nor is a denied store, a shared memory, an unknown VFS."""
    options = {"uri": True}
    for name, given, why in (
        ("other.db", {}, UNKNOWN),
        ("file:other.db?mode=rwc", options, UNKNOWN),
        ("file:shop.db", {}, CANNOT_TELL),
        ("sealed.db", {}, "denied"),
        ("file:shop.db?vfs=other", options, CANNOT_TELL),
        ("file:shop.db?mode=ro&mode=rw", options, CANNOT_TELL),
        ("file://elsewhere/shop.db", options, CANNOT_TELL),
        ("file:shared?mode=memory&cache=shared", options, CANNOT_TELL),
        ("file:/shared?vfs=memdb", options, CANNOT_TELL),
    ):
        said = service.call(add_in, str(files.directory), name, run.mark(), "x", given)
        assert is_refused(said, why), (name, said)
    assert files.names() == FILES


def test_a_shadow_that_is_not_there_is_not_made(service: Service, files: FileSides, run: TestRun) -> None:
    """Marked work is refused, also when the shadow is another name of production; users are served."""
    files.shadow.unlink()
    assert is_refused(service.call(add, str(files.production), run.mark(), "x", {}), "is not there")
    assert not files.shadow.exists()
    files.shadow.hardlink_to(files.production)
    assert is_refused(service.call(add, str(files.production), run.mark(), "x", {}), "production's own file")
    assert service.call(add, str(files.production), None, "ordinary", {}) == 1


def keep(path: str, mark: Mark) -> None:
    with marked(mark):
        connection = kept["connection"] = sqlite3.connect(path)
        connection.execute("INSERT INTO note (text, data) VALUES ('from before', zeroblob(4))")
        kept["cursor"] = connection.cursor()
        kept["blob"] = connection.blobopen("note", "data", 1)
        kept["memory"] = sqlite3.connect(":memory:")


def use_kept(mark: Mark, path: str) -> Any:
    connection, cursor, blob, memory = (kept[name] for name in ("connection", "cursor", "blob", "memory"))
    forget()

    def into_production() -> None:
        with contextlib.closing(sqlite3.connect(path)) as mine:
            mine.backup(connection)

    ways = {
        "execute": lambda: cursor.execute(ADD, ["leaked"]),
        "short": lambda: connection.execute(ADD, ["leaked"]),
        "executemany": lambda: connection.executemany(ADD, [["a"], ["b"]]),
        "script": lambda: connection.executescript("DELETE FROM note"),
        "bare cursor": lambda: sqlite3.Cursor(connection).execute("DELETE FROM note"),
        "commit": connection.commit,
        "rollback": connection.rollback,
        "with": lambda: connection.__exit__(None, None, None),
        "level": lambda: setattr(connection, "isolation_level", None),
        "close": connection.close,
        "dump": lambda: list(connection.iterdump()),
        "backup": lambda: connection.backup(memory),
        "backup into": into_production,
        "blobopen": lambda: connection.blobopen("note", "data", 1),
        "blob": lambda: blob.write(b"leak"),
        "blob item": lambda: blob.__setitem__(0, 65),
        "serialize": connection.serialize,
        "deserialize": lambda: connection.deserialize(b""),
        "function": lambda: connection.create_function("lower", 1, str.upper),
        "authorizer": lambda: connection.set_authorizer(None),
        "interrupt": connection.interrupt,
        "memory": lambda: memory.execute("CREATE TABLE leaked (x)"),
    }
    with marked(mark):
        return {name: attempt(way) for name, way in ways.items()}


def finish_kept() -> Any:
    connection, blob = kept["connection"], kept["blob"]
    said = [connection.in_transaction, blob.read() == b"\0" * 4, isinstance(blob, sqlite3.Blob), len(blob)]
    blob.close()
    connection.commit()
    connection.close()
    kept.clear()
    return said


def test_marked_work_cannot_use_a_connection_kept_from_before(
    service: Service, files: FileSides, run: TestRun
) -> None:
    """Nothing is done with it, neither statements nor the end of a transaction that is somebody else's."""
    # Given
    service.call(keep, str(files.production), None)
    # When
    said = service.call(use_kept, run.mark(), str(files.production))
    # Then
    for way, answer in said.items():
        assert is_refused(answer, FROM_BEFORE), (way, answer)
    assert {told[0] for told in service.call(noted, "session")} <= {"notes"}
    assert service.call(finish_kept) == [True, True, True, 4]
    assert (files.texts("production"), files.texts("shadow")) == (["from before"], [])


def ordinary_finds_shadow() -> Any:
    forget()
    said = [attempt(lambda: kept["connection"].execute(ADD, ["user"])), attempt(kept["connection"].commit)]
    kept.clear()
    return [*said, noted("step_aside")]


def test_ordinary_work_that_finds_a_shadow_connection_loses_it(
    service: Service, files: FileSides, run: TestRun
) -> None:
    """It is closed, as a lost connection is: a real user's row is never silently a shadow row."""
    service.call(keep, str(files.production), run.mark())
    said, ended, aside = service.call(ordinary_finds_shadow)
    assert said == "OperationalError: perflab: this connection belonged to a load test; it was closed"
    assert ended == "ProgrammingError: Cannot operate on a closed database."
    assert aside == [["sql: ordinary work found a shadow connection; it was closed"]]
    assert files.texts("production") == files.texts("shadow") == []


def go_on(mark: Mark) -> Any:
    poll()
    connection = kept["connection"]
    with marked(mark):
        said = [attempt(way) for way in (
            lambda: connection.execute(ADD, ["late"]), connection.commit, lambda: sqlite3.connect(":memory:"),
            kept["blob"].close, connection.rollback, connection.close,
        )]  # fmt: skip
    kept.clear()
    return said


def test_a_killed_run_ends_at_the_next_access(service: Service, files: FileSides, run: TestRun) -> None:
    """Mid-transaction: statement, commit and new connections are refused, giving up is allowed."""
    service.call(keep, str(files.production), run.mark())
    run.kill()
    said = service.call(go_on, run.mark())
    assert all(is_refused(answer, "the run is not live any more") for answer in said[:3]), said
    assert said[3:] == [None, None, None]
    assert files.texts("shadow") == []


def reach_out(path: str, shadow: str, mark: Mark) -> Any:
    asked: list[int] = []

    def authorizer(action: int, *what: Any) -> int:
        asked.append(action)
        return sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_DELETE else sqlite3.SQLITE_OK

    forget()
    with marked(mark), contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.set_authorizer(authorizer)
        new = f"{path}.new"
        said = {
            text: attempt(lambda text=text, given=given: connection.execute(text, given).fetchall())
            for text, given in {
                f"ATTACH '{path}' AS production": (),
                f"ATTACH '{path}' || '' AS production": (),
                "ATTACH ? AS production": (path,),
                f"ATTACH 'file:{path}?mode=rw' AS production": (),
                f"ATTACH '{new}' AS other": (),
                f"VACUUM INTO '{new}'": (),
                "VACUUM INTO ?": (new,),
                "SELECT load_extension('x')": (),
            }.items()
        }
        said["script"] = attempt(lambda: connection.executescript(f"SELECT 1; ATTACH '{path}' AS a"))
        said["extension"] = attempt(lambda: connection.enable_load_extension(True))
        allowed = [
            attempt(lambda text=text: connection.execute(text).fetchall())
            for text in ("VACUUM", "ATTACH ':memory:' AS a", "ATTACH '' AS b", f"ATTACH '{shadow}' AS c")
        ]
        denied = attempt(lambda: connection.execute("DELETE FROM note"))
        connection.set_authorizer(None)
        allowed.append(attempt(lambda: connection.execute("DELETE FROM note").fetchall()))
        again = attempt(lambda: connection.execute(f"ATTACH '{path}' AS production"))
    return [said, allowed, denied, again, len(asked) > 3]


def test_a_shadow_connection_opens_no_other_file(service: Service, files: FileSides, run: TestRun) -> None:
    """ATTACH, VACUUM INTO and extensions are refused, however written; the service's authorizer works on."""
    said, allowed, denied, again, asked = service.call(
        reach_out, str(files.production), str(files.shadow), run.mark()
    )
    if said["extension"].startswith("AttributeError"):
        del said["extension"]  # this Python was built without
    for text, answer in said.items():
        assert str(answer).startswith("ShadowError: "), (text, answer)
    assert allowed == [[]] * 5
    assert denied == "DatabaseError: not authorized"
    assert str(again).startswith("ShadowError: ")
    assert asked
    assert files.names() == FILES
