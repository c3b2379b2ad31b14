"""Write an executed notebook as one HTML file that opens offline and trusts nothing in it.

Stages: outputs -> parts of a page, by a list of allowed MIME types -> the theme's Jinja template, which
escapes by default -> one file. Markup in outputs is cut down to an allow-list, whoever wrote it. Figures
travel as JSON, plotly.js once, compressed, from the installed wheel; a content security policy names both
scripts and the style sheet by their hashes and allows nothing else, so that even markup that slipped
through could neither run nor fetch. Nbconvert's exporters are not used: they read the user's
configuration, do not escape by default, and their stock templates name a CDN.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
import nbformat

from perflab.errors import ReportError
from perflab.report.figuredata import Figure
from perflab.report.parts import Part, parts_of
from perflab.report.template import find_theme

_EMPTY_STYLE = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
# plotly.js adds the style sheet of its maps, which the policy would refuse, unless an element has this id
_PLACEHOLDER = re.compile(
    r'getElementById\("([0-9a-f]{32,128})"\)\)\{var \w+=document\.createElement\("style"\)'
)


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes
    ----------
    path : Path
        The file.
    figures : int
        Figures in it; the page's ``data-figures`` says the same, and its ``data-drawn`` how many were drawn.
    bytes : int
        Its size.
    """

    path: Path
    figures: int
    bytes: int


def export(notebook: Path, out: Path, title: str) -> Exported:
    """Export an executed notebook.

    Parameters
    ----------
    notebook : Path
        The notebook, as `perflab.report.render.render` left it.
    out : Path
        The HTML file; it appears whole or not at all, and the same notebook gives the same bytes.
    title : str
        The page's title.

    Returns
    -------
    Exported

    Raises
    ------
    ReportError
        If the notebook cannot be read, a cell of it failed, or the file cannot be written.
    """
    content = _read(Path(notebook))
    parts = parts_of(content)
    figures = [part.figure for part in parts if part.figure is not None]
    page = _page(parts, figures, title, str(content.metadata.get("perflab", {}).get("language", "en")))
    written = page.encode("utf-8")
    out = Path(out)
    aside = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        aside.write_bytes(written)
        aside.replace(out)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise ReportError(f"cannot write the report {out}: {error.strerror or error}") from error
    return Exported(path=out, figures=len(figures), bytes=len(written))


def _read(path: Path) -> Any:
    try:
        content = nbformat.read(str(path), as_version=4)  # type: ignore[no-untyped-call]  # nbformat is half typed
    except Exception as error:  # nbformat raises whatever its JSON reader and validator do
        raise ReportError(f"cannot read the notebook {path}: {error}") from error
    for number, cell in enumerate(content.cells, start=1):
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                raise ReportError(
                    f"{path} is not exported: its cell {number} failed with {output.ename}: {output.evalue}"
                )
    return content


def _page(parts: list[Part], figures: list[Figure], title: str, language: str) -> str:
    theme = find_theme()
    style = (theme / "style.css").read_text(encoding="utf-8")
    script = (theme / "page.js").read_text(encoding="utf-8")
    plotly = _plotly() if figures else None
    hashes = [_hash(script), *([plotly.hash] if plotly else [])]
    policy = "; ".join(
        (
            "default-src 'none'",
            "script-src " + " ".join(f"'{value}'" for value in hashes),
            f"style-src '{_hash(style)}' '{_EMPTY_STYLE}'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(theme),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(
        title=title,
        language=language,
        policy=policy,
        style=style,
        script=script,
        parts=parts,
        sections=[part for part in parts if part.anchor],
        figures=figures,
        plotly=plotly,
    )


@dataclass(frozen=True)
class _Plotly:
    packed: str
    hash: str
    placeholders: tuple[str, ...]


@lru_cache(maxsize=1)
def _plotly() -> _Plotly:
    """Return plotly.js of the installed wheel, gzipped and in base64, and its hash."""
    from plotly.offline import get_plotlyjs

    text: str = get_plotlyjs()
    packed = gzip.compress(text.encode("utf-8"), compresslevel=9, mtime=0)
    return _Plotly(
        packed=base64.b64encode(packed).decode("ascii"),
        hash=_hash(text),
        placeholders=tuple(dict.fromkeys(_PLACEHOLDER.findall(text))),
    )


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return "sha256-" + base64.b64encode(digest).decode("ascii")
