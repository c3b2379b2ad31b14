"""A figure as it travels in a page: JSON that can neither leave its script element nor fetch anything."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

PLOTLY = "application/vnd.plotly.v1+json"

TRACES = frozenset({"bar", "box", "heatmap", "histogram", "scatter", "violin"})
"""Traces a page may hold: drawn as SVG, from their own data. Maps and WebGL fetch or evaluate."""

_LINK = re.compile(r"<(?=\s*/?\s*a[\s>/])", re.IGNORECASE)
_IN_SCRIPT = str.maketrans(
    {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
)


@dataclass(frozen=True)
class Figure:
    """One figure of a page.

    Attributes
    ----------
    number : int
        From 1, in the order of the page.
    height : int
        Pixels.
    min_width : int
        Pixels below which it scrolls instead of shrinking; 0 for none.
    description : str
        What it shows, in words.
    json : markupsafe.Markup
        ``{"data", "layout"}``, safe inside a script element.
    """

    number: int
    height: int
    min_width: int
    description: str
    json: Markup


def read_figure(value: Any, number: int) -> Figure | str:
    """Take a figure from a notebook's output.

    Parameters
    ----------
    value : object
        The output's ``application/vnd.plotly.v1+json``.
    number : int
        Which figure of the page it is.

    Returns
    -------
    Figure or str
        Or, in words, why it is not shown.
    """
    if not isinstance(value, Mapping) or not isinstance(value.get("data"), list):
        return "A figure is not shown: it is not plotly's JSON."
    layout = value.get("layout", {})
    if not isinstance(layout, Mapping) or not all(isinstance(trace, Mapping) for trace in value["data"]):
        return "A figure is not shown: it is not plotly's JSON."
    strange = sorted({str(trace.get("type", "scatter")) for trace in value["data"]} - TRACES)
    if strange:
        return f"A figure is not shown: a report cannot hold traces of type {', '.join(strange)}."
    layout = {key: item for key, item in layout.items() if key not in ("images", "mapbox", "map", "geo")}
    meta = layout.get("meta")
    meta = meta if isinstance(meta, Mapping) else {}
    text = json.dumps(
        {"data": _without_links(value["data"]), "layout": _without_links(layout)},
        ensure_ascii=False,
        separators=(",", ":"),
        allow_nan=False,
    )
    return Figure(
        number=number,
        height=_pixels(layout.get("height"), 450),
        min_width=_pixels(meta.get("min_width"), 0),
        description=str(meta.get("description", "")),
        json=Markup(text.translate(_IN_SCRIPT)),
    )


def _without_links(value: Any) -> Any:
    """Return a copy in which no text has a link that plotly would draw."""
    if isinstance(value, str):
        return _LINK.sub("&lt;", value)
    if isinstance(value, Mapping):
        return {str(key): _without_links(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_links(item) for item in value]
    return value


def _pixels(value: Any, otherwise: int) -> int:
    return int(value) if isinstance(value, (int, float)) and 0 < value < 20_000 else otherwise
