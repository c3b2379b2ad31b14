"""A shadow connection of SQLite that ordinary work found: the same object opens production's file.

The driver's ``Connection.__init__`` may be run again: it closes what was open, and cursors go on with what
is open then.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import MemberDescriptorType
from typing import Any

from perflab.shadow.sql import session
from perflab.shadow.stores import Place

_SETTINGS = ("row_factory", "text_factory", "autocommit", "isolation_level")


def take_over(
    connection: Any,
    own: Any,
    instead: Callable[..., Any],
    where: Callable[[tuple[Any, ...], dict[str, Any]], Place],
) -> bool:
    """Open in a shadow connection's object what its service had asked for, with the settings it has by now.

    Parameters
    ----------
    connection
        The shadow's.
    own : type
        The driver's own class of connections.
    instead : callable
        Opens what was asked for, in a connection of its own.
    where : callable
        Tells, from what was asked for, where that is.

    Returns
    -------
    bool
        Whether it was done; not for a connection that is closed, or another thread's.
    """
    from sqlite3 import ProgrammingError

    if not isinstance(instead, functools.partial):
        return False
    try:
        own.cursor(connection)
    except ProgrammingError:
        return False
    own.close(instead())  # if this cannot be opened, the object stays as it is
    settings = {name: getattr(connection, name) for name in _SETTINGS if hasattr(own, name)}
    added = _added(connection, own)
    own.__init__(connection, *instead.args, **instead.keywords)
    for name, value in added.items():
        object.__setattr__(connection, name, value)
    for name, value in settings.items():
        if getattr(connection, name) != value:
            getattr(own, name).__set__(connection, value)
    object.__delattr__(connection, "_perflab_gate")
    session.keep_ordinary(connection, "sqlite", lambda: where(instead.args, instead.keywords))
    return True


def _added(connection: Any, own: Any) -> dict[str, Any]:
    """Return what classes derived from the driver's keep in an object: the driver forgets that, too."""
    slots = {
        name
        for theirs in type(connection).__mro__
        if issubclass(theirs, own) and theirs is not own
        for name, value in vars(theirs).items()
        if type(value) is MemberDescriptorType and hasattr(connection, name)
    }
    return {**{name: getattr(connection, name) for name in slots}, **getattr(connection, "__dict__", {})}
