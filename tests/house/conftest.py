"""The files the house's rules are about."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOT_OURS = {".git", ".venv", "dist", "build", "node_modules", "__pycache__"}
NOT_COMMITTED = {ROOT / "data" / "runs", ROOT / "data" / "reports"}


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def committed() -> tuple[Path, ...]:
    """Return every file that is, or would be, committed."""
    return tuple(_files())


@pytest.fixture(scope="session")
def modules() -> dict[Path, ast.Module]:
    """Return the package's modules: path -> syntax tree."""
    return {path: parse(path) for path in _files() if path.suffix == ".py" and is_under(path, "perflab")}


@pytest.fixture(scope="session")
def test_modules() -> dict[Path, ast.Module]:
    """Return the tests' modules: path -> syntax tree."""
    return {path: parse(path) for path in _files() if path.suffix == ".py" and is_under(path, "tests")}


@cache
def parse(path: Path) -> ast.Module:
    """Return a file's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def is_under(path: Path, *folders: str) -> bool:
    """Tell whether a path lies in one of the checkout's folders."""
    return any(path.is_relative_to(ROOT / folder) for folder in folders)


def _files() -> Iterator[Path]:
    for folder, folders, names in os.walk(ROOT):
        here = Path(folder)
        folders[:] = sorted(
            name
            for name in folders
            if name not in NOT_OURS and here / name not in NOT_COMMITTED and not _is_cache(name)
        )
        yield from (here / name for name in sorted(names) if name != ".coverage")


def _is_cache(name: str) -> bool:
    return name.startswith(".") and name != ".ci"
