"""A driver that is loaded another time is without its hook in parts: marked work is refused from then on."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from attached_service import Service, attempt, attempt_async, is_refused, marked, noted
from maria_sides import MariaSides
from two_sides import Sides, TestRun

from perflab.cli.attach import attached_environment

PARTS = {
    "psycopg": "psycopg.connection",
    "psycopg2": "psycopg2._psycopg",
    "pymysql": "pymysql.connections",
    "sqlite3": "_sqlite3",
    "asyncpg": "asyncpg.connection",
}


@contextmanager
def _taken_out(names: list[str]) -> Iterator[None]:
    """Take modules out of those that are loaded; back they go if what follows fails."""
    gone = {name: sys.modules.pop(name) for name in names}
    try:
        yield
    except BaseException:
        sys.modules.update(gone)
        raise


def load_again(library: str, part: str, way: str, mark: dict[str, Any] | None) -> Any:
    """Load a driver, or a part of it, another time."""
    whole = importlib.import_module(library)
    own = [name for name in sys.modules if name.removeprefix("_").partition(".")[0] == library]

    def load() -> str:
        if way == "reload":
            importlib.reload(whole)
        elif way == "reload a part":
            importlib.reload(sys.modules[part])
        else:
            with _taken_out(own if way == "import anew" else [part]):
                importlib.import_module(library if way == "import anew" else part)
        return "loaded"

    with marked(mark):
        return attempt(load)


def judged(mark: dict[str, Any]) -> str:
    """Say what becomes of a marked request that arrives."""
    from perflab.shadow import inbound

    traceparent = f"00-{int(mark['trace_id']):032x}-{int(mark['token'][-6:], 36) + 1:016x}-01"
    try:
        inbound.receive({"traceparent": traceparent, "tracestate": f"perflab={mark['token']}"})
    except inbound.Refused as refused:
        return str(refused)
    return "marked"


def insert_with(library: str, where: Any) -> Any:
    """Do ordinary work with what is loaded now."""
    module = importlib.import_module(library)
    if library == "asyncpg":
        return _insert_async(module, where)
    connection = module.connect(**where) if isinstance(where, dict) else module.connect(where)
    cursor = connection.cursor()
    if library == "sqlite3":
        cursor.execute("CREATE TABLE item (note text)")
    cursor.execute("INSERT INTO item (note) VALUES ('ordinary')")
    connection.commit()
    connection.close()
    return "inserted"


async def _insert_async(module: Any, where: str) -> str:
    connection = await module.connect(where)
    await connection.execute("INSERT INTO item (note) VALUES ('ordinary')")
    await connection.close()
    return "inserted"


async def insert_or_fail(library: str, where: Any) -> str:
    """Do ordinary work, and say what became of it."""
    made = attempt(lambda: insert_with(library, where))
    return str(await attempt_async(lambda: made) if inspect.iscoroutine(made) else made)


def expected(library: str, way: str, where: Any) -> str:
    """Say what becomes of ordinary work without the agent."""
    if library != "asyncpg":
        return "inserted"
    with Service(dict(os.environ)) as plain:
        plain.call(insert_with, library, where)
        plain.call(load_again, library, PARTS[library], way, None)
        return str(plain.call(insert_or_fail, library, where))


@pytest.fixture
def where(request: pytest.FixtureRequest, library: str, sides: Sides) -> Any:
    """Say where the service works."""
    if library == "sqlite3":
        return ":memory:"
    if library == "pymysql":
        maria: MariaSides = request.getfixturevalue("maria")
        return maria.login
    return sides.app


WAYS = [
    *((library, way) for library in PARTS for way in ("reload a part", "import anew")),
    ("psycopg", "reload"),
    ("psycopg", "import a part anew"),
    ("sqlite3", "import a part anew"),
]
WAYS.remove(("sqlite3", "reload a part"))  # in C: Python gives the same module again


@pytest.mark.parametrize(("library", "way"), WAYS)
def test_a_driver_that_is_loaded_again(
    sides: Sides, run: TestRun, library: str, way: str, where: Any
) -> None:
    """Marked work may not; once others did, the service is a hole by name, and their own work goes on."""
    with Service(attached_environment(sides.target, "shop")) as service:
        # Given a service that uses the driver
        assert service.call(insert_with, library, where) == "inserted"
        assert service.call(judged, run.mark()) == "marked"
        # When marked work has it loaded again, then that is refused, and nothing is another
        said = service.call(load_again, library, PARTS[library], way, run.mark())
        assert said.startswith("ShadowError: "), said
        assert "loaded again, without its hook" in said
        assert service.call(judged, run.mark()) == "marked"
        # When the service does, then marked requests are refused, and the run is told to stop
        service.call(noted, "refuse")
        assert service.call(load_again, library, PARTS[library], way, None) == "loaded"
        assert f"shop: hook {library} is failed" in service.call(judged, run.mark())
        assert "was loaded again" in str(service.call(noted, "refuse")[-1])
        # And ordinary work is done as it is without us; asyncpg, imported anew, ends the process by itself
        if (library, way) != ("asyncpg", "import anew"):
            assert service.call(insert_or_fail, library, where) == expected(library, way, where)


def reload_and_write(path: str, mark: dict[str, Any]) -> list[Any]:
    """Reload what is Python of sqlite3, and see marked work try to write to a file."""
    import sqlite3
    import sqlite3.dbapi2

    said = []
    for module in (sqlite3.dbapi2, sqlite3):
        importlib.reload(module)
        with marked(mark):
            said.append(attempt(lambda: sqlite3.connect(path).execute("CREATE TABLE item (note text)")))
    return said


def test_sqlite3_stays_hooked_when_its_python_part_is_reloaded(
    sides: Sides, run: TestRun, service: Service, tmp_path: Path
) -> None:
    """What is hooked is its C part: marked work is refused a file that is no store, as ever."""
    said = service.call(reload_and_write, str(tmp_path / "shop.db"), run.mark())
    assert all(is_refused(one, "this database is not one of the target's stores") for one in said), said
    assert not (tmp_path / "shop.db").exists()
    assert service.call(judged, run.mark()) == "marked"


def failing_first(directory: str) -> Any:
    """Import a library of a hooked one's name that fails at first, as one does that misses a file."""
    from perflab.shadow.scope import process

    package = Path(directory) / "flask"
    package.mkdir()
    (package / "__init__.py").write_text(
        "import flask.part\nclass Flask:\n    full_dispatch_request = None\n"
    )
    (package / "part.py").write_text("import a_module_that_is_not_there\n")
    sys.path.insert(0, directory)
    importlib.invalidate_caches()
    first = attempt(lambda: importlib.import_module("flask").__name__)
    (package / "part.py").write_text("value = 1\n")
    importlib.invalidate_caches()
    second = attempt(lambda: importlib.import_module("flask").__name__)
    return [first.partition(":")[0], second, process.ledger.hooks["flask"]["reason"]]


def test_an_import_that_failed_may_be_tried_again(sides: Sides, tmp_path: Path) -> None:
    """What was not loaded is not loaded another time."""
    with Service(attached_environment(sides.target, "shop")) as service:
        first, second, reason = service.call(failing_first, str(tmp_path))
        assert (first, second) == ("ModuleNotFoundError", "flask")
        assert "again" not in reason
