"""Run a function when a module has been imported: at once if it is there, else right after its import.

What the import system is told stays as it was: the module's own loader is put back before its code runs.
A module that is loaded another time (``importlib.reload``, ``del sys.modules[...]``) is not told of again:
some of its parts may be new and others not. Who must know asks to be told before (`when_loaded_again`).
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
_before: dict[str, Callable[[str], None]] = {}
_again: dict[str, Callable[[str], None]] = {}
_loaded: set[str] = set()
_looking = threading.local()


def when_imported(name: str, notify: Notify, before: Callable[[str], None] | None = None) -> None:
    """Call ``notify`` with the module of that name, now or once it has been imported.

    Parameters
    ----------
    name : str
        Full name of the module.
    notify : callable
        What it raises, the import raises; the next import of the module is told of again.
    before : callable, optional
        Is called with the name before any code of the module runs. What it raises, the import raises: it has
        then not begun, so that the next one finds nothing half done.
    """
    module = sys.modules.get(name)
    if module is not None:
        notify(module)
        return
    _waiting.setdefault(name, []).append(notify)
    if before is not None:
        _before[name] = before
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


def when_loaded_again(name: str, before: Callable[[str], None]) -> None:
    """Call ``before`` when a module that was loaded already is about to be loaded another time.

    Parameters
    ----------
    name : str
        Of a module, or of a package: then what is in it is meant, too.
    before : callable
        Is called with the module's name before any code of it runs. What it raises, the import raises.
    """
    _again[name] = before
    _loaded.update(there for there in list(sys.modules) if _told_again(there) is before)
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


def _told_again(name: str) -> Callable[[str], None] | None:
    return _again.get(name) or _again.get(name.partition(".")[0])


class _Finder:
    """Finds what the other finders find, and has it notify when it is loaded."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if (name not in _waiting and _told_again(name) is None) or getattr(_looking, "now", False):
            return None
        _looking.now = True
        try:
            spec = _found_by_others(name, path, target)
        finally:
            _looking.now = False
        if spec is None:
            return None
        if spec.loader is None:  # a namespace package: it has no code of its own to wait for
            if name in _waiting:
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
        name = module.__name__
        again = _told_again(name)
        if again is not None and name in _loaded:
            again(name)
        if name in _before:
            _before[name](name)
        self._loader.exec_module(module)
        _tell(module)
        if again is not None:
            _loaded.add(name)


def _tell(module: ModuleType) -> None:
    told = _waiting.pop(module.__name__, [])
    try:
        for notify in told:
            notify(module)
    except BaseException:
        _waiting[module.__name__] = told
        raise


_finder = _Finder()
