"""Hooks run right after an import, and the import system notices nothing."""

from __future__ import annotations

import importlib
import importlib.resources
import inspect
import itertools
import pkgutil
import sys
from pathlib import Path

import pytest

from perflab.shadow.imports import when_imported, when_loaded_again

_numbers = itertools.count()


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """``make(text)`` makes a package of its own name that can be imported and returns that name."""
    monkeypatch.syspath_prepend(str(tmp_path))
    made = []

    def write(text: str | None) -> str:
        name = f"made_for_imports_{next(_numbers)}"
        (tmp_path / name).mkdir()
        if text is not None:
            (tmp_path / name / "__init__.py").write_text(text)
        (tmp_path / name / "part.py").write_text("value = 2")
        (tmp_path / name / "data.txt").write_text("data")
        importlib.invalidate_caches()
        made.append(name)
        return name

    yield write
    for name in list(sys.modules):
        if name.partition(".")[0] in made:
            del sys.modules[name]


def test_it_is_told_once_when_the_module_is_complete(make):
    """Nothing before the import, the whole module at it, nothing at a second import."""
    name = make("value = 1")
    told = []
    when_imported(name, lambda module: told.append(module.value))
    when_imported(f"{name}.part", lambda module: told.append(module.value))
    assert told == []
    importlib.import_module(name)
    assert told == [1]
    importlib.import_module(f"{name}.part")
    importlib.import_module(name)
    assert told == [1, 2]


def test_a_module_that_is_there_is_told_at_once():
    """What was imported before is not waited for."""
    told = []
    when_imported("json", told.append)
    assert told == [sys.modules["json"]]


def test_a_module_looks_as_it_would_without_us(make):
    """Loader, spec, source and data files are those of the ordinary import, also while its code runs."""
    plain, hooked = make("loader = __spec__.loader"), make("loader = __spec__.loader")
    when_imported(hooked, lambda _: None)
    modules = [importlib.import_module(name) for name in (plain, hooked)]
    for module in modules:
        assert module.__loader__ is module.__spec__.loader is module.loader
        assert inspect.getsource(module).strip() == "loader = __spec__.loader"
        assert (importlib.resources.files(module) / "data.txt").read_text() == "data"
        assert pkgutil.get_data(module.__name__, "data.txt") == b"data"
    assert type(modules[0].__loader__) is type(modules[1].__loader__)
    assert importlib.reload(modules[1]) is modules[1]


def test_a_namespace_package_is_told_too(make):
    """A package without code of its own is known by its name when it is looked for."""
    name = make(None)
    told = []
    when_imported(name, lambda module: told.append(module.__name__))
    assert importlib.import_module(f"{name}.part").value == 2
    assert told == [name]


def test_an_import_that_fails_is_told_when_it_succeeds(make, tmp_path: Path):
    """A module that raises is not told; a later import of it is."""
    name = make("raise ValueError('not yet')")
    told = []
    when_imported(name, lambda module: told.append(module.__name__))
    with pytest.raises(ValueError, match="not yet"):
        importlib.import_module(name)
    assert told == []
    (tmp_path / name / "__init__.py").write_text("ready = True")
    importlib.invalidate_caches()
    importlib.import_module(name)
    assert told == [name]


def test_what_is_not_there_is_missing_as_before():
    """A module that nobody has raises what it always raised."""
    when_imported("made_for_imports_absent", lambda _: None)
    with pytest.raises(ModuleNotFoundError, match="made_for_imports_absent"):
        importlib.import_module("made_for_imports_absent")
    assert importlib.util.find_spec("made_for_imports_absent") is None


def test_what_it_raises_the_import_raises(make):
    """A hook may refuse an import; the module is then not imported, and the next import is told of again."""
    name = make("value = 1")
    refusals = [PermissionError("once"), PermissionError("again")]

    def refuse(module):
        if refusals:
            raise refusals.pop(0)

    when_imported(name, refuse)
    for why in ("once", "again"):
        with pytest.raises(PermissionError, match=why):
            importlib.import_module(name)
        assert name not in sys.modules
    assert importlib.import_module(name).value == 1


def test_what_is_loaded_another_time_is_told_before(make):
    """By a reload or after it was taken out, of a package or of a part; what it raises, the import raises."""
    name = make("value = 1")
    told = []
    importlib.import_module(name)
    when_loaded_again(name, told.append)
    part = importlib.import_module(f"{name}.part")
    assert told == []
    importlib.reload(sys.modules[name])
    importlib.reload(part)
    del sys.modules[f"{name}.part"]
    importlib.import_module(f"{name}.part")
    assert told == [name, f"{name}.part", f"{name}.part"]

    def refuse(imported):
        raise PermissionError(imported)

    when_loaded_again(name, refuse)
    part = sys.modules[f"{name}.part"]
    part.value = "as it was"
    with pytest.raises(PermissionError):
        importlib.reload(part)
    assert part.value == "as it was"
