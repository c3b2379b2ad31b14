"""Run a function when a module has been imported: at once if it is there, else right after its import.

What the import system is told stays as it was: the module's own loader is put back before its code runs.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from importlib.abc import Loader

Notify = Callable[[ModuleType], None]

_waiting: dict[str, list[Notify]] = {}
_looking = threading.local()


def when_imported(name: str, notify: Notify) -> None:
    """Call ``notify`` with the module of that name, now or once it has been imported.

    Parameters
    ----------
    name : str
        Full name of the module.
    notify : callable
        What it raises, the import raises.
    """
    module = sys.modules.get(name)
    if module is not None:
        notify(module)
        return
    _waiting.setdefault(name, []).append(notify)
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


class _Finder:
    """Finds what the other finders find, and has it notify when it is loaded."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in _waiting or getattr(_looking, "now", False):
            return None
        _looking.now = True
        try:
            spec = _found_by_others(name, path, target)
        finally:
            _looking.now = False
        if spec is None:
            return None
        if spec.loader is None:  # a namespace package: it has no code of its own to wait for
            _tell(importlib.util.module_from_spec(spec))
        elif hasattr(spec.loader, "exec_module"):
            spec.loader = cast("Loader", _Loader(spec.loader))
        return spec


def _found_by_others(name: str, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        spec = find(name, path, target) if find is not None and finder is not _finder else None
        if spec is not None:
            return cast("ModuleSpec", spec)
    return None


class _Loader:
    """A module's own loader, which notifies when the module is loaded."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        create = getattr(self._loader, "create_module", None)
        if create is None:
            return None
        spec.loader = self._loader
        try:
            return cast("ModuleType | None", create(spec))
        finally:
            spec.loader = cast("Loader", self)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        _tell(module)


def _tell(module: ModuleType) -> None:
    for notify in _waiting.pop(module.__name__, ()):
        notify(module)


_finder = _Finder()
