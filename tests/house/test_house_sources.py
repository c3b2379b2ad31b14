"""DESIGN section 6: how long, how named, how documented the package's sources are."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import perflab

FILE_LINES = 400
FUNCTION_LINES = 60
BANNED_WORDS = {"util", "utils", "helper", "helpers", "common", "manager", "misc", "base", "core"}
DOCUMENTED_ROOMS = ("analysis", "figures", "load", "report", "shadow", "trace", "traffic")
UNFINISHED = re.compile(
    "|".join(("TO" + "DO", "FIX" + "ME", "X" + "XX", "not " + "implemented")), re.IGNORECASE
)
UNFINISHED_CODE = {"NotImplementedError", "NotImplemented"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def test_files_are_short(root: Path, modules: dict[Path, ast.Module]):
    """A module longer than 400 lines is two modules."""
    lengths = {path: _lines(path) for path in modules}
    _expect_none(f"{path.relative_to(root)}: {n} lines" for path, n in lengths.items() if n > FILE_LINES)


def test_functions_are_short(root: Path, modules: dict[Path, ast.Module]):
    """A function longer than 60 lines, its docstring aside, is two functions."""
    _expect_none(
        f"{path.relative_to(root)}:{function.lineno}: {function.name} has {_body_lines(function)} lines"
        for path, tree in modules.items()
        for function in _functions(tree)
        if _body_lines(function) > FUNCTION_LINES
    )


def test_modules_say_what_they_are_for(root: Path, modules: dict[Path, ast.Module]):
    """Every module has a docstring on top."""
    _expect_none(str(path.relative_to(root)) for path, tree in modules.items() if not ast.get_docstring(tree))


def test_names_say_something(
    root: Path, modules: dict[Path, ast.Module], test_modules: dict[Path, ast.Module]
):
    """No folder, file, class or function is called by one of the words that say nothing."""
    found = []
    for path, tree in {**modules, **test_modules}.items():
        short = path.relative_to(root)
        found += [f"{short}: file" for part in short.with_suffix("").parts if _words(part) & BANNED_WORDS]
        found += [
            f"{short}:{node.lineno}: {node.name}"
            for node in ast.walk(tree)
            if isinstance(node, Function | ast.ClassDef) and _words(node.name) & BANNED_WORDS
        ]
    _expect_none(found)


def test_nothing_prints_but_the_terminals_rooms(root: Path, modules: dict[Path, ast.Module]):
    """Only cli and demo call print."""
    _expect_none(
        f"{path.relative_to(root)}:{node.lineno}"
        for path, tree in modules.items()
        if path.relative_to(root).parts[1] not in ("cli", "demo")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    )


def test_nothing_is_left_unfinished(root: Path, committed: tuple[Path, ...], modules: dict[Path, ast.Module]):
    """No note to finish something later stands in a source, a notebook or a page, and no stub either."""
    kinds = {".py", ".ipynb", ".md", ".toml", ".html", ".css", ".js", ".sql", ""}
    found = [
        f"{path.relative_to(root)}:{number}: {line.strip()[:80]}"
        for path in committed
        if path.suffix in kinds
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if UNFINISHED.search(line)
    ]
    found += [
        f"{path.relative_to(root)}:{node.lineno}: {node.id}"
        for path, tree in modules.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and node.id in UNFINISHED_CODE and not _is_in_dunder(tree, node)
    ]
    _expect_none(found)


def test_silenced_checks_say_why(root: Path, modules: dict[Path, ast.Module]):
    """A silenced lint or type rule names the rule, and the line says why."""
    silenced = re.compile(r"#\s*(type:\s*ignore|noqa)\b(?P<rule>\[[\w-]+(,\s*[\w-]+)*\]|:\s*\w+)?(?P<why>.*)")
    found = []
    for path in modules:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            match = silenced.search(line)
            if match and not (match["rule"] and re.search(r"\w{3}", match["why"])):
                found.append(f"{path.relative_to(root)}:{number}: {line.strip()}")
    _expect_none(found)


def test_public_functions_document_their_parameters(root: Path, modules: dict[Path, ast.Module]):
    """Functions of the public face, and public ones of three parameters, have a Parameters section."""
    _expect_none(
        f"{path.relative_to(root)}:{function.lineno}: {function.name}({', '.join(_parameters(function))})"
        for path, function in _public(root, modules)
        if len(_parameters(function)) > (0 if function.name in perflab.__all__ else 2)
        and not _has_section(function, "Parameters")
    )


def test_public_functions_document_what_they_raise(root: Path, modules: dict[Path, ast.Module]):
    """A public function with a raise of its own has a Raises section."""
    _expect_none(
        f"{path.relative_to(root)}:{function.lineno}: {function.name}"
        for path, function in _public(root, modules)
        if _raises(function) and not _has_section(function, "Raises")
    )


def _expect_none(found: Iterator[str] | list[str]) -> None:
    listed = sorted(found)
    if listed:
        pytest.fail(f"{len(listed)} to mend:\n" + "\n".join(listed), pytrace=False)


def _lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def _functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def _body_lines(function: Function) -> int:
    lines = (function.end_lineno or 0) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function, clean=False) is not None:
        lines -= (first.end_lineno or 0) - first.lineno + 1
    return lines


def _words(name: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


def _is_in_dunder(tree: ast.Module, node: ast.AST) -> bool:
    """Binary operators answer NotImplemented; that is their protocol, not a stub."""
    inside = (f for f in _functions(tree) if f.lineno <= node.lineno <= (f.end_lineno or 0))
    return any(function.name.startswith("__") for function in inside)


def _public(root: Path, modules: dict[Path, ast.Module]) -> Iterator[tuple[Path, Function]]:
    """Yield the public functions of the rooms whose functions notebooks and other rooms call."""
    for path, tree in modules.items():
        parts = path.relative_to(root / "perflab").parts
        if parts[0] not in DOCUMENTED_ROOMS or (path.name.startswith("_") and path.name != "__init__.py"):
            continue
        for node in tree.body:
            if isinstance(node, Function) and not node.name.startswith("_"):
                yield path, node


def _parameters(function: Function) -> list[str]:
    arguments = function.args
    return [item.arg for item in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]


def _has_section(function: Function, title: str) -> bool:
    return re.search(rf"^{title}\n-+$", ast.get_docstring(function) or "", re.MULTILINE) is not None


def _raises(function: Function) -> bool:
    """Tell whether the function itself, not one defined inside it, raises something new."""
    nested = {
        id(inner) for child in _functions(function) if child is not function for inner in ast.walk(child)
    }
    return any(
        isinstance(node, ast.Raise) and node.exc is not None and id(node) not in nested
        for node in ast.walk(function)
    )
