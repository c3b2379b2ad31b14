"""Which libraries are hooked, and what becomes of those that cannot be or are not."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from attached_stage import Stage, stage_in, until

from perflab.shadow.drivers import HOOKS, UNCOVERED


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage_in(tmp_path_factory.mktemp("stage")) as opened:
        yield opened


STATES = """
import importlib, json
from perflab.shadow.scope import process
for name in sys.argv[1:]:
    importlib.import_module(name)
ledger = process.ledger
print(json.dumps([ledger.hooks, sorted(ledger.uncovered), sorted(ledger.holes("shop"))]))
"""
LIBRARIES = (
    "django.core.handlers.asgi",
    "django.core.handlers.wsgi",
    "flask",
    "starlette.applications",
    "waitress.server",
    "uvicorn.config",
    "requests",
    "httpx",
    "psycopg",
    "psycopg2.pool",
    "psycopg_pool",
    "pymysql",
    "sqlite3",
    "asyncpg",
    "sqlalchemy",
    "redis",
    "redis.asyncio",
    "ssl",
    "concurrent.futures.process",
    "multiprocessing.pool",
)


def test_every_hook_names_what_is_there():
    """Each line of the list points at a function of ours that takes the imported module."""
    for triggers in HOOKS.values():
        for trigger, module, function in triggers:
            assert trigger not in UNCOVERED
            assert callable(getattr(importlib.import_module(module), function))


def test_every_library_is_hooked_when_it_is_imported(stage: Stage):
    """With all of them imported every hook is on, says which version it hooked, and nothing is a hole."""
    said = stage.script(STATES, *LIBRARIES)
    assert said.stderr == ""
    hooks, uncovered, holes = json.loads(said.stdout)
    assert (set(hooks), uncovered, holes) == (set(HOOKS), [], [])
    assert {hook["state"] for hook in hooks.values()} == {"on"}
    assert hooks["flask"]["version"] == importlib.metadata.version("flask")
    assert all(hook["version"] for hook in hooks.values())


def test_uncovered_drivers_are_holes_by_name(stage: Stage):
    """A driver that nobody hooks is noted at its import, from the first line of the service on."""
    said = stage.script(STATES, "pg8000", "zmq", "sqlite3", "requests")
    _, uncovered, holes = json.loads(said.stdout)
    assert uncovered == ["pg8000", "zmq"]
    assert holes == ["shop: driver pg8000 is not covered", "shop: driver zmq is not covered"]


AGAIN = """
def imported(name):
    try:
        __import__(name, fromlist=["x"])
        return "imported"
    except Exception as error:
        return type(error).__name__
for name in ("pyodbc", "pyodbc.inner", "pyodbc"):
    print(marked(sys.argv[1], imported, name))
print(imported("pyodbc.inner"))
"""


def test_marked_work_that_tries_an_uncovered_import_again_is_refused_again(stage: Stage, tmp_path: Path):
    """A retry, or another request on its way, gets no further, by no part of the driver; a real user does."""
    (tmp_path / "pyodbc").mkdir()
    (tmp_path / "pyodbc" / "__init__.py").write_text("from pyodbc import inner")
    (tmp_path / "pyodbc" / "inner.py").write_text("")
    environment = stage.environment()
    environment["PYTHONPATH"] += os.pathsep + str(tmp_path)
    token = stage.marked()["tracestate"].removeprefix("perflab=")
    said = stage.script(AGAIN, token, environment=environment)
    assert said.stdout.split() == ["ShadowError"] * 3 + ["imported"], said.stderr


UNHOOKED = """
import json
from perflab.shadow.scope import process
def imported(name):
    try:
        return __import__(name).__name__
    except Exception as error:
        return type(error).__name__
said = [marked(sys.argv[1], imported, name) for name in ("psycopg", "psycopg.rows", "httpx", "httpx")]
print(json.dumps([*said, imported("psycopg"), imported("httpx")]))
"""


def test_marked_work_gets_no_library_whose_hook_is_off_or_failed(stage: Stage, odd_libraries: Path):
    """Imported first by marked work, nothing would be in its way; a real user imports it as ever."""
    environment = stage.environment(disabled=("psycopg",))
    environment["PYTHONPATH"] += os.pathsep + str(odd_libraries)
    token = stage.marked()["tracestate"].removeprefix("perflab=")
    said = stage.script(UNHOOKED, token, environment=environment)
    assert json.loads(said.stdout) == ["ShadowError"] * 4 + ["psycopg", "httpx"], said.stderr


def test_disabled_hooks_are_holes_where_their_library_is_used(stage: Stage):
    """Left out and not imported is no hole; left out and imported is one."""
    environment = stage.environment(disabled=("httpx", "redis"))
    hooks, _, holes = json.loads(stage.script(STATES, "httpx", environment=environment).stdout)
    assert hooks["httpx"]["state"] == "off"
    assert "redis" not in hooks
    assert holes == ["shop: hook httpx is off"]


@pytest.fixture
def odd_libraries(tmp_path: Path) -> Path:
    """Make a httpx without transports, a redis whose second part fails, and a MySQL namespace package."""
    for name, text in {
        "httpx/__init__.py": "get = 'as always'",
        "redis/__init__.py": "",
        "redis/client.py": "",
        "redis/connection.py": "",
        "redis/asyncio/__init__.py": "",
        "redis/asyncio/client.py": "",
        "mysql/connector/__init__.py": "connect = 'as always'",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_hook_that_fails_is_a_hole_and_the_library_works(stage: Stage, odd_libraries: Path):
    """A library that is not as we know it is imported as ever, reported as failed, closed to marked work."""
    environment = stage.environment(service="odd")
    environment["PYTHONPATH"] += os.pathsep + str(odd_libraries)
    code = STATES + "import httpx, mysql.connector; print(httpx.get, mysql.connector.connect)"
    said = stage.script(
        code, "httpx", "redis.client", "redis.asyncio.client", "mysql.connector", environment=environment
    )
    assert said.stderr == ""
    states, used = said.stdout.splitlines()
    hooks, uncovered, _ = json.loads(states)
    assert used == "as always as always"
    assert uncovered == ["mysql"]
    assert {name: hooks[name]["state"] for name in ("httpx", "redis", "requests")} == {
        "httpx": "failed",
        "redis": "failed",
        "requests": "on",
    }
    assert "HTTPTransport" in hooks["httpx"]["reason"]


def test_a_service_with_a_failed_hook_serves_users_and_refuses_marks(stage: Stage, tmp_path: Path):
    """Users get their answers, marked requests a 403 with the hook's name, the controller a hole."""
    (tmp_path / "redis").mkdir()
    (tmp_path / "redis" / "__init__.py").write_text("")
    (tmp_path / "redis" / "client.py").write_text("")
    (tmp_path / "failing.py").write_text("import redis.client\nfrom flask_shop import app\n")
    environment = stage.environment(service="failing")
    environment["PYTHONPATH"] += os.pathsep + str(tmp_path)
    service = stage.serve("failing:app", environment)
    assert service.get("/items/1")[0] == 200
    status, body = service.get("/items/1", stage.marked())
    assert (status, body["error"].rpartition("it: ")[2]) == (403, "failing: hook redis is failed")
    until(lambda: "failing: hook redis is failed" in stage.receiver.fleet.holes(), "the report")


def test_a_part_that_failed_is_not_forgotten_by_one_that_did_not(stage: Stage, odd_libraries: Path):
    """Of a hook's several parts the worst counts, whatever order their libraries are imported in."""
    environment = stage.environment()
    environment["PYTHONPATH"] += os.pathsep + str(odd_libraries)
    code = """
import json
from perflab.shadow import drivers
from perflab.shadow.scope import process
import socket
drivers._note_state("sockets", "failed", "why", socket)
drivers._note_state("sockets", "on", "", socket)
print(process.ledger.hooks["sockets"]["state"])
"""
    assert stage.script(code, environment=environment).stdout == "failed\n"


def test_secrets_reach_the_hooks_only(stage: Stage):
    """Stores whose secret cannot be read leave their driver failed, not the service."""
    code = """
import os
from perflab.shadow import drivers
from perflab.shadow.scope import process
def unreadable(module):
    raise OSError("no secret")
drivers.install((), {"perflab.shadow.redis": unreadable})
import redis
print(process.ledger.hooks["redis"])
"""
    said = stage.script(code)
    assert "'state': 'failed'" in said.stdout, said.stderr
    assert "no secret" in said.stdout
