"""One look for every figure, and the one door through which strange text reaches a figure.

Colours are Okabe and Ito's, which people with any common colour blindness can tell apart, and no colour
ever carries a meaning alone: a dash, a hatch or a word goes with it. Names of services and spans come from
traces, so they are untrusted: plotly reads ``<a href>``, ``$math$`` and ``%{templates}`` in any label, and
`escape` is what keeps them plain text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import plotly.graph_objects as go
import plotly.io as pio

INK = "#1b2430"
MUTED = "#566173"
RULE = "#e2e6ec"
ALARM = "#a34700"
PAPER = "#ffffff"

BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, BLACK, YELLOW = "#E69F00", "#56B4E9", "#000000", "#F0E442"

SERIES = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, "#4d4d4d", "#b8a800")
"""Colours of series, in the order they are given out."""

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
HATCHES = ("", "/", ".", "x", "-", "\\", "+", "|")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "hexagon")

FONT = (
    '-apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", "PingFang SC", "Microsoft YaHei", '
    '"Noto Sans CJK SC", "Liberation Sans", sans-serif'
)

CONFIG: Mapping[str, Any] = MappingProxyType(
    {
        "displaylogo": False,
        "showSendToCloud": False,
        "responsive": True,
        "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
    }
)
"""How every figure is shown. Plotly 7 offers to upload figures to a cloud by default; this never does."""

TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": FONT, "size": 13, "color": INK},
        "title": {"font": {"size": 15}, "x": 0, "xref": "paper", "xanchor": "left"},
        "colorway": list(SERIES),
        "paper_bgcolor": PAPER,
        "plot_bgcolor": PAPER,
        "margin": {"l": 8, "r": 12, "t": 28, "b": 8},
        "autosize": True,
        "hovermode": "closest",
        "hoverlabel": {
            "align": "left",
            "bgcolor": PAPER,
            "bordercolor": MUTED,
            "font": {"color": INK, "size": 12},
        },
        "legend": {
            "orientation": "h",
            "yanchor": "bottom",
            "y": 1.01,
            "xanchor": "left",
            "x": 0,
            "font": {"size": 12},
            "title": {"text": ""},
        },
        "xaxis": {
            "automargin": True,
            "gridcolor": RULE,
            "linecolor": MUTED,
            "zeroline": False,
            "ticks": "outside",
            "tickcolor": RULE,
            "title": {"font": {"color": MUTED, "size": 12}, "standoff": 8},
            "tickfont": {"color": MUTED, "size": 11},
        },
        "yaxis": {
            "automargin": True,
            "gridcolor": RULE,
            "linecolor": RULE,
            "zeroline": False,
            "title": {"font": {"color": MUTED, "size": 12}, "standoff": 8},
            "tickfont": {"color": MUTED, "size": 11},
        },
    }
)

_EMPTY_PX = 64
_MARKUP = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "$": "&#36;", "%": "&#37;"})
# controls, zero-width characters and bidirectional overrides would reorder or hide what stands beside them
_INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


def escape(text: object, limit: int = 120) -> str:
    """Make any text safe to stand in a label, a hover box or an annotation.

    Parameters
    ----------
    text : object
        What to show; ``str`` is taken of it.
    limit : int
        Characters kept; the middle of a longer text becomes ``…``.

    Returns
    -------
    str
        Text without markup, math, template or invisible characters.

    Examples
    --------
    >>> escape("<b>stock</b> & co")
    '&lt;b&gt;stock&lt;/b&gt; &amp; co'
    >>> escape("abcdefghij", limit=5)
    'ab…ij'
    """
    plain = _INVISIBLE.sub("\ufffd", str(text))
    if len(plain) > limit:
        head = (limit - 1) // 2
        plain = plain[:head] + "…" + plain[len(plain) - (limit - 1 - head) :]
    return plain.translate(_MARKUP)


def new_figure(description: str, height: int, **layout: Any) -> go.Figure:
    """Return an empty figure in the house's look.

    Parameters
    ----------
    description : str
        What the figure shows, in plain words: the text beside it for those who cannot see it.
    height : int
        Pixels; the width is always the reader's.
    **layout
        Further layout, as plotly names it.
    """
    figure = go.Figure()
    figure.update_layout(template=TEMPLATE, height=height, meta={"description": description}, **layout)
    return figure


def empty_figure(description: str) -> go.Figure:
    """Return a figure that says in words why there is nothing to draw."""
    figure = new_figure(description, height=_EMPTY_PX)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    words(figure, escape(description, 200), x=0.0, y=0.5, xanchor="left", font={"color": MUTED, "size": 13})
    return figure


def words(figure: go.Figure, text: str, **place: Any) -> None:
    """Write ``text`` (already escaped) on the paper of a figure, without an arrow."""
    figure.add_annotation(
        text=text, xref="paper", yref="paper", **{"showarrow": False, "align": "left", **place}
    )


def colours(names: Iterable[str]) -> dict[str, str]:
    """Give each name a colour, the same for the same set of names whatever their order.

    Examples
    --------
    >>> colours(["b", "a", "b"]) == {"a": SERIES[0], "b": SERIES[1]}
    True
    """
    return {name: SERIES[index % len(SERIES)] for index, name in enumerate(sorted(set(names)))}


def hatches(names: Iterable[str]) -> dict[str, str]:
    """Give names beyond the first `SERIES` a hatch as well, so that a colour used twice is told apart."""
    return {
        name: HATCHES[(index // len(SERIES)) % len(HATCHES)] for index, name in enumerate(sorted(set(names)))
    }


def tint(colour: str, strength: float) -> str:
    """Mix a ``#rrggbb`` colour with white; ``strength`` 1 is the colour itself.

    Examples
    --------
    >>> tint("#000000", 0.5)
    '#808080'
    """
    parts = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
    mixed = [round(255 - (255 - part) * strength) for part in parts]
    return "#" + "".join(f"{part:02x}" for part in mixed)


def show_ms(value_ms: float) -> str:
    """Write float milliseconds in the unit a reader would choose.

    Examples
    --------
    >>> show_ms(0.25), show_ms(12.345), show_ms(2500.0)
    ('250 µs', '12.3 ms', '2.5 s')
    """
    if math.isnan(value_ms):
        return "—"
    size = abs(value_ms)
    if size >= 1000:
        return f"{value_ms / 1000:.3g} s" if size < 1_000_000 else f"{value_ms / 1000:,.0f} s"
    if size >= 1 or size == 0:
        return f"{value_ms:.3g} ms"
    return f"{value_ms * 1000:.3g} µs"


def show_ratio(ratio: float) -> str:
    """Write a ratio as a percentage with no more digits than it deserves.

    Examples
    --------
    >>> show_ratio(0.4321), show_ratio(0.0123), show_ratio(1.0)
    ('43 %', '1.2 %', '100 %')
    """
    if math.isnan(ratio):
        return "—"
    percent = ratio * 100
    return f"{percent:.0f} %" if abs(percent) >= 9.95 else f"{percent:.2g} %"


def _forbid_upload() -> None:
    """Give plotly's own renderers `CONFIG`, so that a figure shown in a notebook has no upload button."""
    for name in ("plotly_mimetype", "jupyterlab", "vscode", "notebook", "notebook_connected", "browser"):
        if name in pio.renderers:
            renderer = pio.renderers[name]
            renderer.config = {**(renderer.config or {}), **CONFIG}


_forbid_upload()
