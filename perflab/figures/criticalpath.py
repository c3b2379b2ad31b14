"""What mending each place would buy: one bar per entity, with the interval of the estimate."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from perflab.figures import theme

if TYPE_CHECKING:
    from perflab.analysis.bottleneck import Bottlenecks

MAX_BARS = 12
_ROW_PX = 46


def critical_path(bottlenecks: Bottlenecks) -> go.Figure:
    """Draw the gain expected from mending each of the first twelve entities.

    Parameters
    ----------
    bottlenecks : Bottlenecks
        Its ``table``: ``entity gain_ms low_ms high_ms share_ratio stands_out``, worst first.

    Returns
    -------
    plotly.graph_objects.Figure
        Gain in ms per request from the entity's exclusive critical time, with the interval from ``low_ms`` to
        ``high_ms``. What stands out is vermillion, hatched, and said to stand out.
    """
    table = bottlenecks.table.head(MAX_BARS)
    if table.empty:
        return theme.empty_figure("Nothing to rank: there is no complete trace.")
    rows = list(table.to_dict("records"))
    left_out = len(bottlenecks.table) - len(rows)
    description = f"Gain per request from mending each place, worst first, with intervals; {len(rows)} places"
    description += f", {left_out} smaller ones left out." if left_out else "."
    figure = theme.new_figure(description, height=len(rows) * _ROW_PX + 60, bargap=0, showlegend=False)
    for is_out in (True, False):
        _add_bars(
            figure, [(place, row) for place, row in enumerate(rows) if bool(row["stands_out"]) is is_out]
        )
    for place, row in enumerate(rows):
        figure.add_annotation(
            text=_label(row),
            xref="paper",
            x=0,
            xanchor="left",
            y=place + 0.27,
            yanchor="middle",
            showarrow=False,
            font={"size": 12},
        )
    figure.update_xaxes(title="milliseconds a request would gain", rangemode="tozero", nticks=6)
    figure.update_yaxes(visible=False, range=[len(rows) + 0.05, 0], fixedrange=True)
    return figure


def _add_bars(figure: go.Figure, part: list[tuple[int, dict[str, Any]]]) -> None:
    """Add the bars of the rows that stand out, or of those that do not."""
    if not part:
        return
    is_out = bool(part[0][1]["stands_out"])
    colour = theme.VERMILLION if is_out else theme.BLUE
    gains = [_number(row.get("gain_ms")) for _, row in part]
    lows = [_number(row.get("low_ms"), gain) for (_, row), gain in zip(part, gains, strict=True)]
    highs = [_number(row.get("high_ms"), gain) for (_, row), gain in zip(part, gains, strict=True)]
    figure.add_bar(
        orientation="h",
        x=gains,
        y=[place + 0.7 for place, _ in part],
        width=0.42,
        marker={
            "color": theme.tint(colour, 0.55),
            "line": {"color": colour, "width": 1},
            "pattern": {
                "shape": "/" if is_out else "",
                "fillmode": "overlay",
                "fgcolor": colour,
                "size": 7,
                "solidity": 0.25,
            },
        },
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [max(high - gain, 0.0) for high, gain in zip(highs, gains, strict=True)],
            "arrayminus": [max(gain - low, 0.0) for low, gain in zip(lows, gains, strict=True)],
            "color": theme.INK,
            "thickness": 1.4,
            "width": 5,
        },
        hoverinfo="text",
        hovertext=[_hover(row) for _, row in part],
    )


def _number(value: Any, otherwise: float = 0.0) -> float:
    number = float(value) if value is not None else math.nan
    return otherwise if math.isnan(number) else number


def _label(row: dict[str, Any]) -> str:
    text = f"<b>{theme.escape(row['entity'], 48)}</b>  {theme.show_ms(_number(row.get('gain_ms')))}"
    text += f"  <span style='color:{theme.MUTED}'>{theme.show_ratio(_number(row.get('share_ratio')))}</span>"
    if row.get("stands_out"):
        text += f"  <span style='color:{theme.ALARM}'><b>stands out</b></span>"
    return text


def _hover(row: dict[str, Any]) -> str:
    gain, low, high = (theme.show_ms(_number(row.get(key))) for key in ("gain_ms", "low_ms", "high_ms"))
    lines = [
        f"<b>{theme.escape(row['entity'])}</b>",
        f"gain {gain} a request, between {low} and {high}",
        f"{theme.show_ratio(_number(row.get('share_ratio')))} of the critical time",
    ]
    for name in ("evidence", "advice"):
        if row.get(name):
            lines.append(theme.escape(row[name], 90))
    return "<br>".join(lines)
