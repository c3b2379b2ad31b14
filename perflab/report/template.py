"""Notebook templates: where they are, what parameters they declare, and what they are given.

A template is a notebook whose metadata says what it takes::

    "perflab": {
      "title": "Load test",
      "parameters": {
        "run": {"type": "path", "required": true, "description": "the run's directory"}
      }
    }

and whose one cell tagged ``parameters`` holds ``params_file = ""``. Parameters reach it as one JSON file,
never as generated code; they are checked here, before a kernel starts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import perflab
from perflab.errors import ConfigError

PARAMETERS_TAG = "parameters"

_TYPES: Mapping[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (float, int),
    "bool": (bool,),
    "path": (str, Path),
}


@dataclass(frozen=True)
class Parameter:
    """One declared parameter; ``type`` is one of str, int, float, bool, path."""

    name: str
    type: str
    required: bool
    description: str


@dataclass(frozen=True)
class Template:
    """A notebook that can be rendered, and what it takes."""

    path: Path
    title: str
    language: str
    parameters: tuple[Parameter, ...]


def find_template(name: str) -> Path:
    """Find a template that perflab ships.

    Parameters
    ----------
    name : str
        Its file's name, with or without ``.ipynb``.

    Raises
    ------
    ConfigError
        If there is no such template; the message lists those there are.
    """
    stem = name.removesuffix(".ipynb")
    for folder in _folders():
        path = folder / f"{stem}.ipynb"
        if "/" not in stem and path.is_file():
            return path
    known = sorted({path.stem for folder in _folders() for path in folder.glob("*.ipynb")})
    raise ConfigError(
        f"there is no template {name!r}; there are: {', '.join(known) or 'none'}. "
        "A notebook of your own is given by its path, ending in .ipynb"
    )


def find_theme() -> Path:
    """Return the folder of the HTML theme.

    Raises
    ------
    ConfigError
        If this installation of perflab is incomplete.
    """
    for folder in _folders():
        if (folder / "html" / "page.html.j2").is_file():
            return folder / "html"
    raise ConfigError(
        f"the HTML theme is missing from {' and '.join(map(str, _folders()))}; reinstall perflab"
    )


def load_template(path: Path) -> Template:
    """Read what a template declares.

    Raises
    ------
    ConfigError
        If the file is no notebook, declares a parameter of an unknown type, or has not exactly one cell
        tagged ``parameters``.
    """
    notebook = _read_json(path)
    cells = notebook.get("cells")
    if not isinstance(cells, list):
        raise ConfigError(f"{path} is no notebook: it has no list of cells")
    tagged = [cell for cell in cells if PARAMETERS_TAG in cell.get("metadata", {}).get("tags", [])]
    if len(tagged) != 1:
        raise ConfigError(
            f"{path} has {len(tagged)} cells tagged '{PARAMETERS_TAG}'; "
            'a template has exactly one, holding params_file = ""'
        )
    declared = notebook.get("metadata", {}).get("perflab", {})
    return Template(
        path=path,
        title=str(declared.get("title", path.stem)),
        language=str(declared.get("language", "en")),
        parameters=tuple(_parameter(path, *item) for item in declared.get("parameters", {}).items()),
    )


def check_params(template: Template, params: Mapping[str, Any]) -> dict[str, Any]:
    """Check parameters against what a template declares.

    Parameters
    ----------
    template : Template
        What `load_template` read.
    params : mapping
        Parameter -> value.

    Returns
    -------
    dict
        The parameters as JSON can hold them; paths made absolute.

    Raises
    ------
    ConfigError
        Naming every unknown, missing or ill-typed parameter at once, and listing what there is.
    """
    declared = {parameter.name: parameter for parameter in template.parameters}
    wrong = [f"unknown parameter {name!r}" for name in params if name not in declared]
    wrong += [
        f"parameter {name!r} is missing"
        for name, parameter in declared.items()
        if parameter.required and name not in params
    ]
    checked: dict[str, Any] = {}
    for name, value in params.items():
        if name in declared:
            problem = _problem(declared[name], value)
            if problem:
                wrong.append(problem)
            checked[name] = str(Path(value).resolve()) if isinstance(value, Path) else value
            if declared[name].type == "path" and not problem:
                checked[name] = str(Path(value).resolve())
    if wrong:
        raise ConfigError(
            f"template {template.path.stem}: {'; '.join(wrong)}. It takes: {_listing(template)}"
        )
    return checked


def read_params(params_file: str | Path) -> dict[str, Any]:
    """Read the parameters inside a template.

    Parameters
    ----------
    params_file : str or Path
        What the ``parameters`` cell holds; ``""`` when the notebook is run by hand.

    Returns
    -------
    dict
        Parameter -> value; empty for ``""``.

    Examples
    --------
    >>> read_params("")
    {}
    """
    return _read_json(Path(params_file)) if params_file else {}


def _folders() -> tuple[Path, ...]:
    package = Path(perflab.__file__).resolve().parent
    return tuple(
        folder for folder in (package / "templates", package.parent / "templates") if folder.is_dir()
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds {type(content).__name__}, not an object")
    return content


def _parameter(path: Path, name: str, declared: Mapping[str, Any]) -> Parameter:
    kind = str(declared.get("type", "str"))
    if kind not in _TYPES:
        raise ConfigError(f"{path} declares {name!r} with type {kind!r}; the types are {', '.join(_TYPES)}")
    return Parameter(name, kind, bool(declared.get("required", False)), str(declared.get("description", "")))


def _problem(parameter: Parameter, value: Any) -> str:
    """Return what is wrong with a value, or ""."""
    is_right = isinstance(value, _TYPES[parameter.type])
    if isinstance(value, bool) and parameter.type != "bool":
        is_right = False
    if not is_right:
        return (
            f"parameter {parameter.name!r} should be {parameter.type}, is {type(value).__name__} ({value!r})"
        )
    if parameter.type == "path" and not Path(value).exists():
        return f"parameter {parameter.name!r}: there is no {value}"
    return ""


def _listing(template: Template) -> str:
    if not template.parameters:
        return "no parameters"
    return "; ".join(
        f"{parameter.name} ({parameter.type}{', required' if parameter.required else ''})"
        + (f": {parameter.description}" if parameter.description else "")
        for parameter in template.parameters
    )
