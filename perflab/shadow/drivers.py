"""Which libraries the agent hooks, and which it knows to be stores or servers it does not cover.

A service that imports an uncovered one is a hole: the preflight names it and refuses the run, and the
process refuses marked requests. One file per hook, one line here.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import platform
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from types import ModuleType
from typing import Any

from perflab.shadow import scope
from perflab.shadow.imports import when_imported
from perflab.shadow.ledger import holes_of
from perflab.shadow.scope import process

HOOKS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "flask": (("flask", "perflab.shadow.inbound_wsgi", "hook_flask"),),
    "starlette": (("starlette.applications", "perflab.shadow.inbound_asgi", "hook_starlette"),),
    "requests": (("requests.adapters", "perflab.shadow.outbound", "hook_requests"),),
    "httpx": (("httpx", "perflab.shadow.outbound", "hook_httpx"),),
    "psycopg": (("psycopg", "perflab.shadow.sql", "hook_psycopg"),),
    "psycopg-pool": (("psycopg_pool", "perflab.shadow.pools", "hook_psycopg_pool"),),
    "sqlalchemy": (("sqlalchemy.pool.base", "perflab.shadow.pools", "hook_sqlalchemy"),),
    "redis": (
        ("redis.client", "perflab.shadow.redis", "hook_redis"),
        ("redis.asyncio.client", "perflab.shadow.redis", "hook_redis_async"),
    ),
    "sockets": (
        ("socket", "perflab.shadow.sockets", "hook_socket"),
        ("ssl", "perflab.shadow.sockets", "hook_ssl"),
    ),
    "threads": (
        ("threading", "perflab.shadow.threads", "hook_threading"),
        ("concurrent.futures.thread", "perflab.shadow.threads", "hook_executors"),
        ("concurrent.futures.process", "perflab.shadow.threads", "hook_process_executors"),
        ("multiprocessing.pool", "perflab.shadow.threads", "hook_pools"),
    ),
}
"""Hook name -> (module that triggers it, our module, its hook function)."""

_STORES = (
    "aio_pika aiokafka aiomysql aiopg aiosqlite apsw asyncmy asyncpg bmemcached boto3 botocore cassandra "
    "clickhouse_connect clickhouse_driver confluent_kafka cx_Oracle duckdb elasticsearch kafka kombu lmdb "
    "motor mysql MySQLdb nats oracledb pg8000 pika psycopg2 pulsar pylibmc pymemcache pymongo pymssql "
    "pymysql pyodbc rocketmq sqlite3 valkey zmq"
)
_PAST_THE_SOCKETS = "curl_cffi eventlet gevent grpc pycurl uvloop"
_SERVERS = (
    "aiohttp.web bottle django.core.handlers.asgi django.core.handlers.wsgi falcon litestar "
    "pyramid.router quart sanic tornado.web"
)
UNCOVERED = frozenset(f"{_STORES} {_PAST_THE_SOCKETS} {_SERVERS}".split())
"""Clients of stores that are not hooked, what sends from C, servers whose requests are not judged."""

Prepare = Callable[[Any], None]


def install(disabled: Iterable[str], prepare: Mapping[str, Prepare] | None = None) -> None:
    """Register every hook to run when its library is imported, or now where it is already.

    A hook that fails is reported, never silently skipped: the preflight refuses a run while one is failed or
    disabled and its library is in use.

    Parameters
    ----------
    disabled : iterable of str
        Hooks to leave out.
    prepare : mapping of str to callable, optional
        Our module -> what is called with it before its hooks: how it learns the target's stores.
    """
    switched_off = set(disabled)
    for name, triggers in HOOKS.items():
        for trigger, module, function in triggers:
            if name in switched_off:
                when_imported(trigger, functools.partial(_note_state, name, "off", ""))
            else:
                ready = (prepare or {}).get(module)
                when_imported(trigger, functools.partial(_hook, name, module, function, ready))
    for name in UNCOVERED:
        when_imported(name, _note_uncovered)


def _hook(name: str, module: str, function: str, prepare: Prepare | None, imported: ModuleType) -> None:
    try:
        ours = importlib.import_module(module)
        if prepare is not None:
            prepare(ours)
        getattr(ours, function)(imported)
    except Exception as error:
        _note_state(name, "failed", repr(error), imported)
    else:
        _note_state(name, "on", "", imported)


def _note_state(name: str, state: str, reason: str, imported: ModuleType) -> None:
    known = process.ledger.hooks.get(name)
    if known is None or known["state"] == "on":  # of a hook's several parts the worst counts
        version = _version(name, imported)
        process.ledger.hooks[name] = {"state": state, "version": version, "reason": reason}


def _note_uncovered(imported: ModuleType) -> None:
    """Note a hole; to the marked work that makes it, it is closed here and now.

    Raises
    ------
    ShadowError
        If marked work imports it and its run does not accept that.
    """
    name = imported.__name__
    process.ledger.uncovered.add(name)
    shadow = scope.current()
    if shadow is not None and shadow.tag:
        hole = holes_of(process.service, {}, (name,))
        if not hole <= process.control.accepted(shadow.tag):
            scope.refuse(name, "marked work imported a driver that perflab does not cover", shadow)


def _version(name: str, imported: ModuleType) -> str:
    if name in ("sockets", "threads"):
        return f"python {platform.python_version()}"
    package = sys.modules.get(imported.__name__.partition(".")[0], imported)
    said = vars(package).get("__version__")  # without asking: some warn when they are asked
    if said is None:
        with contextlib.suppress(metadata.PackageNotFoundError):
            said = metadata.version(name)  # reads the disk
    return str(said or "")
