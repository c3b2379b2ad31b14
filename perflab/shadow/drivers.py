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
from perflab.shadow.imports import when_imported, when_loaded_again
from perflab.shadow.installed import may_import
from perflab.shadow.ledger import LOST, holes_of
from perflab.shadow.scope import process
from perflab.shadow.uncovered import UNCOVERED

HOOKS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "servers": (
        ("waitress.server", "perflab.shadow.inbound_servers", "hook_waitress"),
        ("werkzeug.serving", "perflab.shadow.inbound_servers", "hook_werkzeug"),
        ("wsgiref.handlers", "perflab.shadow.inbound_servers", "hook_wsgiref"),
        ("gunicorn.workers.base", "perflab.shadow.inbound_servers", "hook_gunicorn"),
        ("uvicorn.config", "perflab.shadow.inbound_servers", "hook_uvicorn"),
        ("hypercorn.app_wrappers", "perflab.shadow.inbound_servers", "hook_hypercorn"),
        ("http.server", "perflab.shadow.inbound_servers", "hook_http_server"),
    ),
    "flask": (("flask", "perflab.shadow.inbound_wsgi", "hook_flask"),),
    "starlette": (("starlette.applications", "perflab.shadow.inbound_asgi", "hook_starlette"),),
    "django": (
        ("django.core.handlers.base", "perflab.shadow.inbound_django", "hook_handlers"),
        ("django.core.handlers.wsgi", "perflab.shadow.inbound_django", "hook_wsgi"),
        ("django.core.handlers.asgi", "perflab.shadow.inbound_django", "hook_asgi"),
        ("django.http.response", "perflab.shadow.inbound_django", "hook_responses"),
        ("django.utils.connection", "perflab.shadow.sql.django", "hook_connections"),
        ("django.db.backends.base.base", "perflab.shadow.sql.django", "hook_wrappers"),
        ("django.core.cache", "perflab.shadow.django_memory", "hook_caches"),
        ("django.core.cache.backends.locmem", "perflab.shadow.django_memory", "hook_memory_caches"),
        ("django.core.cache.backends.filebased", "perflab.shadow.django_memory", "hook_file_caches"),
        ("django.contrib.sessions.backends.file", "perflab.shadow.django_memory", "hook_file_sessions"),
        ("django.contrib.contenttypes.models", "perflab.shadow.django_memory", "hook_content_types"),
        ("django.contrib.sites.models", "perflab.shadow.django_memory", "hook_sites"),
        ("django.contrib.postgres.signals", "perflab.shadow.django_memory", "hook_postgres_types"),
    ),
    "requests": (("requests.adapters", "perflab.shadow.outbound", "hook_requests"),),
    "httpx": (("httpx", "perflab.shadow.outbound", "hook_httpx"),),
    "psycopg": (("psycopg", "perflab.shadow.sql.psycopg3", "hook_psycopg"),),
    "pymysql": (("pymysql.connections", "perflab.shadow.sql.pymysql", "hook_pymysql"),),
    "psycopg-pool": (("psycopg_pool", "perflab.shadow.sql.pools", "hook_psycopg_pool"),),
    "psycopg2": (
        ("psycopg2", "perflab.shadow.sql.psycopg2", "hook_psycopg2"),
        ("psycopg2.pool", "perflab.shadow.sql.psycopg2_pool", "hook_psycopg2_pool"),
    ),
    "sqlite3": (("_sqlite3", "perflab.shadow.sql.sqlite3", "hook_sqlite3"),),
    "asyncpg": (("asyncpg", "perflab.shadow.sql.asyncpg", "hook_asyncpg"),),
    "sqlalchemy": (("sqlalchemy.pool.base", "perflab.shadow.sql.pools", "hook_sqlalchemy"),),
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
        ("_thread", "perflab.shadow.threads", "hook_thread_functions"),
        ("concurrent.futures._base", "perflab.shadow.threads", "hook_futures"),
        ("concurrent.futures.thread", "perflab.shadow.threads", "hook_executors"),
        ("multiprocessing.pool", "perflab.shadow.threads", "hook_pools"),
        ("sched", "perflab.shadow.threads", "hook_sched"),
        ("queue", "perflab.shadow.queues", "hook_queue"),
        ("asyncio.queues", "perflab.shadow.queues", "hook_asyncio_queues"),
        ("asyncio.tasks", "perflab.shadow.queues", "hook_wait_for"),
        ("os", "perflab.shadow.processes", "hook_os"),
        ("subprocess", "perflab.shadow.processes", "hook_subprocess"),
        ("concurrent.futures.process", "perflab.shadow.processes", "hook_process_executors"),
        ("multiprocessing.process", "perflab.shadow.processes", "hook_process_start"),
        ("multiprocessing.queues", "perflab.shadow.processes", "hook_process_queues"),
    ),
}
"""Hook name -> (module that triggers it, our module, its hook function)."""

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
        Our module, or the package it is in -> what is called with the module before its hooks: how it learns
        the target's stores.
    """
    switched_off = set(disabled)
    for name, triggers in HOOKS.items():
        for trigger, module, function in triggers:
            if name in switched_off:
                note_off = functools.partial(_note_state, name, "off", "")
                when_imported(trigger, note_off, functools.partial(_refuse_unhooked, name, "off"))
            else:
                ready = (prepare or {}).get(module) or (prepare or {}).get(module.rpartition(".")[0])
                when_imported(trigger, functools.partial(_hook, name, module, function, ready))
                when_loaded_again(_whole(trigger), functools.partial(_note_again, name))
    for name in UNCOVERED:
        when_imported(name, _note_uncovered, _refuse_uncovered)


def _hook(name: str, module: str, function: str, prepare: Prepare | None, imported: ModuleType) -> None:
    try:
        if not may_import(module):
            raise ImportError("perflab was replaced on disk while this process ran; restart the service")
        ours = importlib.import_module(module)
        if prepare is not None:
            prepare(ours)
        getattr(ours, function)(imported)
    except Exception as error:
        _note_state(name, "failed", repr(error), imported)
        _refuse_unhooked(name, "failed", imported.__name__)
    else:
        _note_state(name, "on", "", imported)


def _note_state(name: str, state: str, reason: str, imported: ModuleType) -> None:
    known = process.ledger.hooks.get(name)
    if known is None or known["state"] == "on":  # of a hook's several parts the worst counts
        version = _version(name, imported)
        process.ledger.hooks[name] = {"state": state, "version": version, "reason": reason}


def _whole(trigger: str) -> str:
    """Return what must not be loaded twice: all of a library; of Python's own, the module alone."""
    library = trigger.partition(".")[0]
    return trigger if library.lstrip("_") in sys.stdlib_module_names else library


def _note_again(name: str, imported: str) -> None:
    """Note that a hooked library is loaded another time: parts of it will be without the hook.

    Marked work that has it loaded is refused. If others do while a run is live, the run is stopped, for
    marked work that is under way may find what is not hooked.
    """
    why = f"{imported} was loaded again after it was hooked; restart the service"
    if _opens(holes_of(process.service, {name: {"state": "failed"}}, ())):
        scope.refuse(imported, "marked work had a module loaded again, without its hook")
    known = process.ledger.hooks.get(name, {"version": "", "state": "on"})
    if known["state"] == "on":
        process.ledger.hooks[name] = {**known, "state": "failed", "reason": why}
        if process.control.live:
            process.ledger.refuse(LOST, why, 0)


def _note_uncovered(imported: ModuleType) -> None:
    """Note a hole; to the marked work that makes it, it is closed here and now."""
    process.ledger.uncovered.add(imported.__name__)
    _refuse_uncovered(imported.__name__)  # a namespace package had no code to wait for


def _refuse_uncovered(name: str) -> None:
    """Refuse marked work the import of a driver that is not covered, and note that the service uses it."""
    if _opens(holes_of(process.service, {}, (name,))):
        process.ledger.uncovered.add(name)
        scope.refuse(name, "marked work imported a driver that perflab does not cover")


def _refuse_unhooked(name: str, state: str, imported: str) -> None:
    """Refuse marked work a library whose hook is off or failed, and note it: nothing would be in its way."""
    if _opens(holes_of(process.service, {name: {"state": state}}, ())):
        process.ledger.hooks.setdefault(name, {"state": state, "version": "", "reason": ""})
        scope.refuse(imported, f"marked work imported a library whose hook {name} is {state}")


def _opens(holes: set[str]) -> bool:
    """Tell whether marked work is running that these would be holes to: its run does not accept them."""
    shadow = scope.current()
    return shadow is not None and bool(shadow.tag) and not holes <= process.control.accepted(shadow.tag)


def _version(name: str, imported: ModuleType) -> str:
    library = imported.__name__.partition(".")[0]
    if name == "sqlite3" or library in sys.stdlib_module_names:
        return f"python {platform.python_version()}"
    said = vars(sys.modules.get(library, imported)).get("__version__")  # unasked: some warn when asked
    for package in (name, library):  # a hook may be of several libraries
        if said is None:
            with contextlib.suppress(metadata.PackageNotFoundError):
                said = metadata.version(package)  # reads the disk
    return str(said or "")
