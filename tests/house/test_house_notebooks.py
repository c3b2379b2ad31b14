"""DESIGN section 6: notebooks and templates are stripped, short-celled and use public names only."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from IPython.core.inputtransformer2 import TransformerManager

import perflab

CELL_LINES = 12
ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted(
    path
    for folder in ("notebooks", "templates")
    for path in (ROOT / folder).rglob("*.ipynb")
    if ".ipynb_checkpoints" not in path.parts
)


@dataclass(frozen=True)
class Cell:
    """One code cell: its number among all cells, text, tags and syntax tree."""

    number: int
    text: str
    tags: tuple[str, ...]
    tree: ast.Module
    raw: dict[str, Any]


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.name)
def notebook(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_there_are_notebooks_and_templates():
    """Both folders hold at least one notebook; the rules below would hold for none."""
    assert {path.parent.name for path in NOTEBOOKS} == {"notebooks", "templates"}


def test_outputs_are_stripped(notebook: Path):
    """No output, no execution count, no widget state is committed; every cell has an id."""
    content = json.loads(notebook.read_text(encoding="utf-8"))
    assert content["nbformat"] == 4
    assert "widgets" not in content["metadata"]
    assert [cell["id"] for cell in content["cells"]]
    for cell in _code_cells(notebook):
        assert cell.raw["outputs"] == [], f"cell {cell.number}"
        assert cell.raw["execution_count"] is None, f"cell {cell.number}"


def test_one_cell_holds_the_parameters(notebook: Path):
    """Exactly one code cell is tagged ``parameters``."""
    tagged = [cell.number for cell in _code_cells(notebook) if "parameters" in cell.tags]
    assert len(tagged) == 1, f"cells tagged parameters: {tagged}"


def test_cells_are_short(notebook: Path):
    """A code cell has at most twelve lines."""
    long = {cell.number: len(cell.text.splitlines()) for cell in _code_cells(notebook)}
    assert {number: lines for number, lines in long.items() if lines > CELL_LINES} == {}


def test_nothing_is_defined(notebook: Path):
    """Notebooks call the package; functions and classes are defined and tested there."""
    defined = [
        f"cell {cell.number}: {getattr(node, 'name', 'lambda')}"
        for cell in _code_cells(notebook)
        for node in ast.walk(cell.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    ]
    assert defined == []


def test_only_public_names_are_used(notebook: Path):
    """Perflab is imported as ``pf`` and only names that exist and have no underscore are taken from it."""
    wrong = []
    for cell in _code_cells(notebook):
        for node in ast.walk(cell.tree):
            wrong += [f"cell {cell.number}: {text}" for text in _not_public(node)]
    assert wrong == []


def _code_cells(path: Path) -> list[Cell]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [_cell(number, raw) for number, raw in enumerate(cells, 1) if raw["cell_type"] == "code"]


def _cell(number: int, raw: dict[str, Any]) -> Cell:
    text = "".join(raw["source"])
    plain = TransformerManager().transform_cell(text)
    flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    tree = compile(plain, f"cell {number}", "exec", flags)
    return Cell(number, text, tuple(raw["metadata"].get("tags", ())), tree, raw)


def _not_public(node: ast.AST) -> Iterator[str]:
    """Yield what a piece of a cell takes from perflab that it should not."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.name.partition(".")[0] == "perflab" and (alias.name, alias.asname) != ("perflab", "pf"):
                yield f"import {alias.name} as {alias.asname}; write 'import perflab as pf'"
    elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "perflab":
        if node.module != "perflab" or not {alias.name for alias in node.names} <= set(perflab.__all__):
            yield f"from {node.module} import ...; write 'import perflab as pf' and use pf's names"
    elif isinstance(node, ast.Attribute):
        chain = _chain(node)
        if chain and chain[0] == "pf" and (chain[1] not in perflab.__all__ or not _exists(chain[1:])):
            yield f"{'.'.join(chain)} is no public name; there are {', '.join(perflab.__all__)}"
        elif node.attr.startswith("_"):
            yield f".{node.attr} is private"


def _chain(node: ast.expr) -> list[str]:
    """Return ``["pf", "figures", "waterfall"]`` for ``pf.figures.waterfall``, ``[]`` for anything else."""
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute):
        before = _chain(node.value)
        return [*before, node.attr] if before else []
    return []


def _exists(names: list[str]) -> bool:
    found: Any = perflab
    for name in names:
        if name.startswith("_") or not hasattr(found, name):
            return False
        found = getattr(found, name)
    return True
