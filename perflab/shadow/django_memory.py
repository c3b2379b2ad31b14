"""What Django keeps of its stores in a process's memory and in files: kept apart for marked work.

An id, a type's number or a cached page that marked work found in the shadow must not be what the next real
user gets, nor the other way round. Split are: content types, sites, PostgreSQL's type numbers, caches in
memory and in files, sessions in files. Caches in a database or a Redis follow their drivers' hooks; a cache
of any other kind is refused to marked work.

Not split: what an application itself keeps in variables, and files it writes.
"""

from __future__ import annotations

import functools
import os
import threading
from collections import UserDict
from collections.abc import Callable
from typing import Any

from perflab.shadow import scope
from perflab.shadow.twosided import TwoSided, split

FOLDER = "perflab-shadow"
"""The folder of marked work's files, within the folder of the ordinary ones: Django looks into no folders."""

_KNOWN_CACHES = (
    "django.core.cache.backends.base.BaseMemcachedCache",
    "django.core.cache.backends.db.DatabaseCache",
    "django.core.cache.backends.dummy.DummyCache",
    "django.core.cache.backends.filebased.FileBasedCache",
    "django.core.cache.backends.locmem.LocMemCache",
    "django.core.cache.backends.memcached.BaseMemcachedCache",
    "django.core.cache.backends.redis.RedisCache",
    "django_redis.cache.RedisCache",
)
_memory: dict[int, tuple[Any, Any]] = {}


def hook_caches(module: Any) -> None:
    """Refuse unknown kinds of caches to marked work; ``module`` is ``django.core.cache``."""
    handler = module.CacheHandler
    create = handler.create_connection

    @functools.wraps(create)
    def attached(caches: Any, alias: str) -> Any:
        cache = create(caches, alias)
        if scope.current() is not None:
            kinds = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(cache).__mro__]
            if not set(kinds) & set(_KNOWN_CACHES):
                scope.refuse(f"cache {alias!r}", f"a cache of the kind {kinds[0]} is not covered")
        return cache

    handler.create_connection = attached


def hook_memory_caches(module: Any) -> None:
    """Split caches in memory; ``module`` is ``django.core.cache.backends.locmem``."""
    for name, make in (("_cache", _empty), ("_expire_info", _empty), ("_lock", lambda _: threading.Lock())):
        split(module.LocMemCache, name, functools.partial(_of_all_instances, make))


def hook_file_caches(module: Any) -> None:
    """Split caches in files; ``module`` is ``django.core.cache.backends.filebased``."""
    split(module.FileBasedCache, "_dir", lambda _, folder: os.path.join(folder, FOLDER))


def hook_file_sessions(module: Any) -> None:
    """Split sessions in files; ``module`` is ``django.contrib.sessions.backends.file``."""

    def twin(_: Any, folder: str) -> str:
        there = os.path.join(folder, FOLDER)
        os.makedirs(there, mode=0o700, exist_ok=True)
        return there

    split(module.SessionStore, "storage_path", twin)


def hook_content_types(module: Any) -> None:
    """Split the content types that are remembered; ``module`` is ``django.contrib.contenttypes.models``."""
    split(module.ContentTypeManager, "_cache", functools.partial(_of_all_instances, _empty))


def hook_sites(module: Any) -> None:
    """Split the sites that are remembered; ``module`` is ``django.contrib.sites.models``.

    The module keeps them in a variable of its own, which each of its functions looks up: it gets them from a
    dictionary that is two.
    """
    module.SITE_CACHE = _TwoDictionaries(module.SITE_CACHE)
    module.SiteManager.clear_cache = lambda _: module.SITE_CACHE.clear()


def hook_postgres_types(module: Any) -> None:
    """Split the type numbers that are remembered; ``module`` is ``django.contrib.postgres.signals``.

    With psycopg 2 Django registers them for the whole process; the shadow's are for its connection only.
    """
    for name in ("get_hstore_oids", "get_citext_oids"):
        setattr(module, name, _remembered_twice(getattr(module, name)))
    register = module.register_type_handlers

    @functools.wraps(register)
    def attached(connection: Any, **options: Any) -> None:
        if scope.current() is None or module.is_psycopg3 or connection.vendor != "postgresql":
            register(connection, **options)
        elif connection.alias != module.NO_DB_ALIAS:
            _register_types(module, connection)

    module.register_type_handlers = attached


def _empty(value: Any) -> Any:
    return type(value)()


def _of_all_instances(make: Callable[[Any], Any], _: Any, ordinary: Any) -> Any:
    """Return the twin of an object that several instances share: caches of one name, copies of a manager."""
    return _memory.setdefault(id(ordinary), (ordinary, make(ordinary)))[1]


def _remembered_twice(function: Any) -> Any:
    marked = functools.lru_cache(function.__wrapped__)

    @functools.wraps(function)
    def attached(*arguments: Any) -> Any:
        return (function if scope.current() is None else marked)(*arguments)

    def cache_clear() -> None:
        (function if scope.current() is None else marked).cache_clear()

    attached.cache_clear = cache_clear  # type: ignore[attr-defined]  # as functools.lru_cache has it
    return attached


def _register_types(module: Any, connection: Any) -> None:
    """Do what Django's own function does, but for one connection of psycopg 2."""
    numbers, arrays = module.get_hstore_oids(connection.alias)
    if numbers:
        module.register_hstore(connection.connection, oid=numbers, array_oid=arrays)
    _, arrays = module.get_citext_oids(connection.alias)
    if arrays:
        extensions = module.psycopg2.extensions
        array_type = extensions.new_array_type(arrays, "citext[]", module.psycopg2.STRING)
        extensions.register_type(array_type, connection.connection)


class _TwoDictionaries(UserDict[Any, Any]):
    """A dictionary that is another one for marked work."""

    data: Any = TwoSided("data", lambda _owner, _ordinary: {})
