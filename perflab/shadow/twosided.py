"""An attribute with two values: one for ordinary work, one for marked work.

What a library keeps in the process's memory, and both kinds of work would share, is kept apart by putting a
`TwoSided` in its place: the library's own code runs unchanged and finds its side's value.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from perflab.shadow import scope

_lock = threading.Lock()


class TwoSided:
    """Stands for an attribute in a class; instances keep the ordinary value where it always was.

    Parameters
    ----------
    name : str
        Of the attribute.
    twin : callable
        Makes the value of marked work from the instance and its ordinary value: once per instance and value.
    """

    def __init__(self, name: str, twin: Callable[[Any, Any], Any]) -> None:
        self._name, self._twin, self._kept = name, twin, f"_perflab_{name}"

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        values = instance.__dict__
        try:
            ordinary = values[self._name]
        except KeyError:
            raise AttributeError(self._name) from None
        if scope.current() is None:
            return ordinary
        kept = values.get(self._kept)
        if kept is None or kept[0] is not ordinary:
            with _lock:
                kept = values.get(self._kept)
                if kept is None or kept[0] is not ordinary:
                    kept = values[self._kept] = (ordinary, self._twin(instance, ordinary))
        return kept[1]

    def __set__(self, instance: Any, value: Any) -> None:
        instance.__dict__[self._name] = value

    def __delete__(self, instance: Any) -> None:
        del instance.__dict__[self._name]


def split(owner: Any, name: str, twin: Callable[[Any, Any], Any]) -> None:
    """Give the instances of a class a `TwoSided` attribute.

    Parameters
    ----------
    owner : type
        The class.
    name : str
        Of an attribute its instances set.
    twin : callable
        As for `TwoSided`.

    Raises
    ------
    TypeError
        If the class keeps the attribute in a way that cannot be split.
    """
    if hasattr(owner, name):
        raise TypeError(f"{owner.__qualname__}.{name} is not set by the instances")
    setattr(owner, name, TwoSided(name, twin))
