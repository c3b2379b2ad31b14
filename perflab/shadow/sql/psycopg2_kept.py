"""A shadow connection of psycopg 2 that ordinary work found: its object stands for another one.

The driver's connections are written in C and cannot be opened again. So ordinary work goes on with a
counterpart that was opened as its service had asked, and the object it found gets a class that hands
everything on to that: attributes, settings, cursors, its end. A cursor made before is made anew on the
counterpart, in its own object, when it is next used; not one with a name, which the server kept.

Not covered: functions of the driver that take the connection itself (``quote_ident``, ``register_type``);
they find it closed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

_SETTINGS = ("autocommit", "isolation_level", "readonly", "deferrable", "cursor_factory")
_OF_A_CURSOR = ("arraysize", "itersize", "row_factory", "tzinfo_factory")
_MADE_BY_PYTHON = 1 << 9
_OURS = ("_perflab", "_perflab_counterpart")


def own_class(connection: Any) -> Any:
    """Return the driver's own class of a connection or cursor, whose attributes are C's."""
    return next(one for one in type(connection).__mro__ if not one.__flags__ & _MADE_BY_PYTHON)


def successor(owner: Any, connection: Any, instead: Callable[..., Any]) -> Any:
    """Return what ordinary work goes on with in the place of something it found; None where it cannot.

    Parameters
    ----------
    owner
        The shadow connection, or what was made of it.
    connection
        The connection.
    instead : callable
        Opens what its service had asked for.
    """
    found = owner is connection
    if not found and getattr(owner, "name", "large objects have none") is not None:
        return None
    there = _counterpart(connection, instead)
    if found or there is None:
        return there
    own = own_class(owner)
    settings = {name: getattr(own, name).__get__(owner) for name in _OF_A_CURSOR}
    own.__init__(owner, there)
    for name, value in settings.items():
        getattr(own, name).__set__(owner, value)
    return owner


def _counterpart(connection: Any, instead: Callable[..., Any]) -> Any:
    """Return the connection that is used instead of a shadow, opened once; the shadow's session is closed.

    None for one its service closed, and for one that learned types, whose numbers are the shadow's.
    """
    there = getattr(connection, "_perflab_counterpart", None)
    if there is not None:
        return there
    own = own_class(connection)
    closed_by_service = own.closed.__get__(connection) == 1
    if closed_by_service or own.string_types.__get__(connection) or own.binary_types.__get__(connection):
        return None
    there = instead()
    for name in _SETTINGS:
        value = getattr(own, name).__get__(connection)
        if value != getattr(own, name).__get__(there):
            getattr(own, name).__set__(there, value)
    if hasattr(connection, "__dict__"):
        there.__dict__ = connection.__dict__
    own.close(connection)
    object.__setattr__(connection, "_perflab_counterpart", there)
    found: Any = type(connection)
    connection.__class__ = _standing_for(found)
    return there


class _StandIn:
    """Hands everything on; whoever marks or knows a side asks what is its own."""

    __slots__ = ()
    _perflab_counterpart: Any

    def __getattribute__(self, name: str) -> Any:
        if name in _OURS:
            return object.__getattribute__(self, name)
        return getattr(self._perflab_counterpart, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._perflab_counterpart, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._perflab_counterpart, name)

    def __enter__(self) -> Any:
        self._perflab_counterpart.__enter__()
        return self

    def __exit__(self, *exc_info: Any) -> Any:
        return self._perflab_counterpart.__exit__(*exc_info)

    def __repr__(self) -> str:
        return repr(self._perflab_counterpart)


@functools.cache
def _standing_for(theirs: Any) -> Any:
    """Return the class of objects of ``theirs`` that stand for others."""
    body = {name: value for name, value in vars(_StandIn).items() if callable(value)}
    return type(theirs.__name__, (theirs,), {**body, "__slots__": (), "__module__": theirs.__module__})
