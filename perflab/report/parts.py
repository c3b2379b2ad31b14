"""Turns the outputs of a notebook into the parts of a page.

Of each output the first MIME type of `_ORDER` is taken and nothing else is known. HTML and Markdown are
cut down to an allow-list of elements and attributes: no script, style, address, form or handler survives,
wherever it came from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import bleach
import mistune
from markupsafe import Markup, escape

from perflab.report.figuredata import PLOTLY, Figure, read_figure

_ORDER = (PLOTLY, "text/html", "text/markdown", "text/plain")

_BLOCKS = (
    "blockquote",
    "details",
    "div",
    "h1",
    "h2",
    "h3",
    "h4",
    "header",
    "hr",
    "p",
    "pre",
    "section",
    "summary",
)
_INLINE = ("a", "b", "br", "code", "em", "i", "small", "span", "strong", "sub", "sup")
_LISTS = ("dd", "dl", "dt", "li", "ol", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "ul")
_ELEMENTS = frozenset({*_BLOCKS, *_INLINE, *_LISTS})
_CLASS = re.compile(r"[A-Za-z0-9 _-]{0,120}")
_ANCHOR = re.compile(r"#[A-Za-z0-9_-]{1,80}")
_SPAN = re.compile(r"[1-9][0-9]{0,2}")
_NOT_SLUG = re.compile(r"[^a-z0-9\u3400-\u9fff]+")
# mermaid, LaTeX and the like have no interpreter here; scripts and styles are dropped with what they hold
_DROPPED = re.compile(
    r"<(script|style|iframe|template|svg|math)\b.*?(</\1\s*>|\Z)", re.IGNORECASE | re.DOTALL
)


@dataclass(frozen=True)
class Part:
    """A piece of the page, in order.

    Attributes
    ----------
    html : markupsafe.Markup
        Safe markup; none for a figure.
    figure : Figure, optional
        A figure in its place.
    anchor, heading : str
        Of a part that begins a section: the id and the words of its first second-level heading.
    """

    html: Markup | None = None
    figure: Figure | None = None
    anchor: str = ""
    heading: str = ""


def parts_of(notebook: Any) -> list[Part]:
    """Return the parts of an executed notebook; its code is left out.

    Parameters
    ----------
    notebook : nbformat.NotebookNode
        A version 4 notebook.
    """
    parts: list[Part] = []
    figures = 0
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(_section(cell.source, {part.anchor for part in parts}))
        elif cell.cell_type == "code":
            for output in cell.get("outputs", []):
                for part in _output(output, figures + 1):
                    figures += part.figure is not None
                    parts.append(part)
    return parts


def clean_html(text: str) -> Markup:
    """Cut markup down to what a report may hold.

    Examples
    --------
    >>> clean_html('<b onclick="x()">a</b><script>bad()</script><a href="javascript:x">b</a>')
    Markup('<b>a</b><a>b</a>')
    """
    cleaned = bleach.clean(
        _DROPPED.sub("", text),
        tags=_ELEMENTS,
        attributes=_is_allowed,
        protocols=[],
        strip=True,
        strip_comments=True,
    )
    return Markup(cleaned)


def markdown(text: str) -> Markup:
    r"""Render Markdown; HTML in it is shown as text.

    Examples
    --------
    >>> markdown("# a <b>")
    Markup('<h1>a &lt;b&gt;</h1>\n')
    """
    render = mistune.create_markdown(escape=True, plugins=["table", "strikethrough"])
    return clean_html(str(render(text)))


def _section(source: str, taken: set[str]) -> Part:
    found = re.search(r"^##\s+(.+?)\s*$", source, re.MULTILINE)
    html = markdown(source)
    if not found:
        return Part(html=Markup('<div class="prose">{}</div>').format(html))
    slug = _NOT_SLUG.sub("-", found[1].lower()).strip("-") or "section"
    anchor, number = slug, 2
    while anchor in taken:
        anchor, number = f"{slug}-{number}", number + 1
    return Part(
        html=Markup('<div class="prose" id="{}">{}</div>').format(anchor, html),
        anchor=anchor,
        heading=found[1],
    )


def _output(output: Any, number: int) -> Iterator[Part]:
    if output.output_type == "stream":
        if output.name == "stdout":
            yield Part(html=Markup("<pre>{}</pre>").format(_text(output.text)))
        return
    data: Mapping[str, Any] = output.get("data", {})
    kind = next((name for name in _ORDER if name in data), None)
    if kind is None:
        names = ", ".join(sorted(data)) or "no type"
        yield Part(
            html=Markup('<p class="refused">An output is not shown: a report holds no {}.</p>').format(names)
        )
    elif kind == PLOTLY:
        figure = read_figure(data[kind], number)
        if isinstance(figure, Figure):
            yield Part(figure=figure)
        else:
            yield Part(html=Markup('<p class="refused">{}</p>').format(figure))
    elif kind == "text/html":
        yield Part(html=Markup('<div class="output">{}</div>').format(clean_html(_text(data[kind]))))
    elif kind == "text/markdown":
        yield Part(html=Markup('<div class="prose">{}</div>').format(markdown(_text(data[kind]))))
    else:
        yield Part(html=Markup("<pre>{}</pre>").format(escape(_text(data[kind]))))


def _text(value: Any) -> str:
    return "".join(value) if isinstance(value, list) else str(value)


def _is_allowed(element: str, name: str, value: str) -> bool:
    if name == "class":
        return bool(_CLASS.fullmatch(value))
    if name == "href":
        return element == "a" and bool(_ANCHOR.fullmatch(value))
    if name in ("colspan", "rowspan"):
        return element in ("td", "th") and bool(_SPAN.fullmatch(value))
    if name == "scope":
        return element == "th" and value in ("col", "row")
    return name == "tabindex" and value == "0"
