"""Render a notebook template to one HTML file that opens offline.

TEMPLATE is the name of a template that perflab ships, or the path of a notebook. FILE holds the
parameters as one JSON object; they are checked against what the template declares before anything runs.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from perflab.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    parser.add_argument("template", metavar="TEMPLATE", help="a template's name, or a notebook's path")
    parser.add_argument("--params", type=Path, required=True, metavar="FILE", help="the parameters, in JSON")
    parser.add_argument(
        "--out", type=Path, metavar="HTML", help="the file to write (default: data/reports/<TEMPLATE>.html)"
    )
    parser.add_argument("--title", help="the page's title (default: the template's)")
    parser.add_argument("--json", action="store_true", help="print one JSON object about the file instead")


def run(arguments: argparse.Namespace) -> int:
    """Render, export and say where the file is."""
    params = _read_params(arguments.params)
    from perflab.report.export import export
    from perflab.report.render import render
    from perflab.report.template import find_template, load_template

    path = Path(arguments.template)
    template = path if path.suffix == ".ipynb" and path.is_file() else find_template(arguments.template)
    out = arguments.out or Path("data/reports") / f"{template.stem}.html"
    notebook = render(template, params, into=out.with_suffix(".ipynb"))
    exported = export(notebook, out, title=arguments.title or load_template(template).title)
    if arguments.json:
        told = {"report": str(exported.path), "figures": exported.figures, "bytes": exported.bytes}
        print(json.dumps({**told, "notebook": str(notebook)}, ensure_ascii=False))
    else:
        print(f"{exported.path}: {exported.figures} figures, {exported.bytes / 1e6:.1f} MB")
    return 0


def _read_params(path: Path) -> dict[str, Any]:
    try:
        params = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the parameters in {path}: {error.strerror or error}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(params, dict):
        raise ConfigError(f"{path} holds {type(params).__name__}, not one JSON object of parameters")
    return params
