"""libpq itself, which psycopg 3 offers as ``psycopg.pq``: closed to marked work, open to the driver.

What is sent there passes neither a connection's fence nor the guard of sockets: psycopg's C implementation
calls libpq, its Python one calls it through ``ctypes``. So marked work may not connect with ``pq.PGconn``,
and gets the ``pgconn`` of a connection only where it might use the connection itself. The driver's own
connecting is known by `scope.permit`, its own reading of ``pgconn`` by the module that reads.

Not covered: the class taken from an object (``type(connection.pgconn)``), and ``ctypes`` on libpq.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

from perflab.shadow import scope
from perflab.shadow.sql import session
from perflab.shadow.sql.session import session_of

_CONNECTS = ("connect", "connect_start", "ping")
_DRIVER = frozenset({"perflab", "psycopg", "psycopg_binary", "psycopg_c", "psycopg_pool"})
_WHY = "marked work tried to talk to libpq itself (psycopg.pq), past its driver"


def hook(module: Any) -> None:
    """Close libpq to marked work; ``module`` is ``psycopg``."""
    pq = module.pq
    if pq.__impl__ == "python":
        for name in _CONNECTS:
            setattr(pq.PGconn, name, classmethod(_closed(vars(pq.PGconn)[name].__func__)))
    else:
        implementation: Any = sys.modules[pq.PGconn.__module__]
        pq.PGconn = implementation.PGconn = _stand_in(pq.PGconn)
    module.generators.connect = _closed(module.generators.connect)
    connection = next(owner for owner in module.Connection.__mro__ if "info" in owner.__dict__)
    connection.info = property(_telling(connection.info.fget), doc=connection.info.__doc__)
    connection.pgconn = module.ConnectionInfo.pgconn = _guarded("pgconn")


def _closed(connect: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(connect)
    def attached(*arguments: Any, **options: Any) -> Any:
        if scope.current() is not None and not scope.permitted():
            scope.refuse("postgresql", _WHY)
        return connect(*arguments, **options)

    return attached


def _stand_in(original: Any) -> Any:
    """Return a class that stands for one written in C, which cannot be patched."""

    class Meta(type(original)):  # type: ignore[misc]  # the metaclass of a class known when it is there
        def __instancecheck__(cls, instance: Any) -> bool:
            return isinstance(instance, original)

        def __subclasscheck__(cls, subclass: type) -> bool:
            return issubclass(subclass, original)

    def connecting(name: str) -> Any:
        method = getattr(original, name)  # bound to the class in C: what it returns is of that class
        return staticmethod(_closed(method))

    body = {name: connecting(name) for name in _CONNECTS}
    body |= {"__module__": original.__module__, "__qualname__": original.__qualname__}
    return Meta(original.__name__, (original,), {**body, "__doc__": original.__doc__})


def _guarded(name: str) -> property:
    """Return what stands for an attribute that the driver reads all the time and others hardly ever."""

    def read(owner: Any) -> Any:
        try:
            value = owner.__dict__[name]
        except KeyError:
            raise AttributeError(f"{type(owner).__name__!r} object has no attribute {name!r}") from None
        if scope.current() is not None:
            caller = sys._getframe(1).f_globals.get("__name__", "")
            if caller.partition(".")[0] not in _DRIVER:
                session.admit(session_of(owner), "postgresql", lambda: None)
        return value

    def write(owner: Any, value: Any) -> None:
        owner.__dict__[name] = value

    return property(read, write)


def _telling(info: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Have what a connection tells of itself know whose the connection is."""

    @functools.wraps(info)
    def attached(connection: Any) -> Any:
        told = info(connection)
        known = session_of(connection)
        if known is not None:
            session.keep(told, known)
        return told

    return attached
