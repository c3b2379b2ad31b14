"""Which libraries the agent hooks, and which it knows to be stores it does not cover.

A service that imports an uncovered driver is a hole: the preflight names it and refuses the run. One file
per hook, one line here.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from importlib import metadata
from typing import Any

import wrapt

from perflab.shadow.scope import process

HOOKS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "flask": (("flask", "perflab.shadow.inbound", "hook_flask"),),
    "starlette": (("starlette.applications", "perflab.shadow.inbound", "hook_starlette"),),
    "requests": (("requests.adapters", "perflab.shadow.outbound", "hook_requests"),),
    "httpx": (("httpx", "perflab.shadow.outbound", "hook_httpx"),),
    "psycopg": (("psycopg", "perflab.shadow.sql", "hook_psycopg"),),
    "psycopg-pool": (("psycopg_pool", "perflab.shadow.pools", "hook_psycopg_pool"),),
    "sqlalchemy": (("sqlalchemy.pool.base", "perflab.shadow.pools", "hook_sqlalchemy"),),
    "redis": (
        ("redis.client", "perflab.shadow.redis", "hook_redis"),
        ("redis.asyncio.client", "perflab.shadow.redis", "hook_redis_async"),
    ),
    "sockets": (("socket", "perflab.shadow.sockets", "hook_socket"),),
    "threads": (
        ("threading", "perflab.shadow.threads", "hook_threading"),
        ("concurrent.futures.thread", "perflab.shadow.threads", "hook_executors"),
    ),
}
"""Hook name -> (module that triggers it, our module, its hook function)."""

UNCOVERED = frozenset(
    (
        "aiomysql aiopg aiosqlite asyncmy asyncpg bmemcached boto3 botocore cassandra "
        "clickhouse_connect clickhouse_driver confluent_kafka cx_Oracle elasticsearch kafka "
        "aiokafka kombu MySQLdb motor mysql nats oracledb pika aio_pika pg8000 psycopg2 pulsar "
        "pylibmc pymemcache pymongo pymssql pymysql pyodbc rocketmq sqlite3 valkey zmq "
    ).split()
)
"""Top-level names of drivers and clients that write to stores and are not hooked."""


def install(disabled: Iterable[str]) -> None:
    """Register every hook to run when its library is imported, or now where it is already.

    A hook that fails is reported, never silently skipped: the preflight refuses a run while one is failed or
    disabled and its library is in use.
    """
    switched_off = set(disabled)
    for name, triggers in HOOKS.items():
        for trigger, module, function in triggers:
            off = name in switched_off
            wrapt.register_post_import_hook(_runner(name, module, function, off=off), trigger)
    for name in UNCOVERED:
        wrapt.register_post_import_hook(_note_uncovered, name)


def _runner(name: str, module: str, function: str, *, off: bool) -> Any:
    def run(imported: Any) -> None:
        state = {"state": "off" if off else "on", "version": _version(name, imported), "reason": ""}
        if not off:
            try:
                getattr(importlib.import_module(module), function)(imported)
            except Exception as error:
                state.update(state="failed", reason=repr(error))
        process.ledger.hooks[name] = state

    return run


def _note_uncovered(imported: Any) -> None:
    process.ledger.uncovered.add(imported.__name__)


def _version(name: str, imported: Any) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return str(getattr(imported, "__version__", "")) or "python " + sys.version.split()[0]
