"""Latency three ways: over time, as percentiles on an axis of nines, and against the offered rate.

Latency is from when a request was due, so it holds the waiting a slow server causes. A percentile that
lies among unanswered requests is a lower bound: an open triangle, and ``≥`` in words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
import plotly.graph_objects as go

from perflab.figures import theme

if TYPE_CHECKING:
    from perflab.analysis.latency import Latency

_QUANTILES = (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("p999", 0.999))
_TICKS = tuple((-math.log10(1 - share), label.replace("999", "99.9")) for label, share in _QUANTILES)
_MOST_ENDPOINTS = 6
_ENOUGH = 1000
_LINES = (("p50", theme.BLUE, "solid"), ("p95", theme.ORANGE, "dash"), ("p99", theme.VERMILLION, "dot"))
_LOG_ABOVE = 20.0
_PANEL_PX, _LABEL_PX = 230, 14
_READABLE = {theme.ORANGE: "#8a5f00", theme.VERMILLION: theme.ALARM, theme.PURPLE: "#8f4a72"}


def latency_over_time(latency: Latency, real_users: pd.DataFrame | None = None) -> go.Figure:
    """Draw p50, p95 and p99 of every second above the rate that was offered.

    Parameters
    ----------
    latency : Latency
        Its ``over_time``: ``at_s offered_per_s p50_ms p95_ms p99_ms`` and their ``_censored``.
    real_users : pandas.DataFrame, optional
        ``at_s p99_ms`` of the real users meanwhile, as a line of its own.

    Returns
    -------
    plotly.graph_objects.Figure
    """
    if latency.over_time.empty:
        return theme.empty_figure("No latency over time: no request was sent.")
    table = _every_second(latency.over_time)
    description = (
        f"Latency of each second of the run ({len(table)} s): p50, p95 and p99 above, the offered rate below."
    )
    if real_users is not None and len(real_users):
        description += " The real users' p99 is drawn with them."
    figure = _two_panels(description, "seconds since the start", "latency, ms", "offered, per s")
    _add_percentile_lines(figure, table, table["at_s"].tolist(), mode="lines")
    if real_users is not None and len(real_users):
        _add_line(
            figure,
            real_users["at_s"],
            real_users["p99_ms"],
            "real users p99",
            theme.PURPLE,
            "longdashdot",
        )
    figure.add_bar(
        x=table["at_s"].tolist(),
        y=table["offered_per_s"].tolist(),
        yaxis="y2",
        name="offered",
        marker={"color": theme.tint("#4d5a6b", 0.45)},
        hovertemplate="second %{x}: %{y:.0f} per s offered<extra></extra>",
    )
    _scale_latency(figure, table)
    _name_lines(figure)
    return figure


def percentiles(latency: Latency) -> go.Figure:
    """Draw the percentiles of each endpoint, with their intervals, on an axis of nines.

    Parameters
    ----------
    latency : Latency
        Its ``table``: per ``endpoint`` ``p50_ms`` to ``p999_ms``, ``*_low_ms *_high_ms *_censored``.

    Returns
    -------
    plotly.graph_objects.Figure
        Each step to the right is one nine: 1 in 10, 1 in 100, 1 in 1,000 requests is slower than that. A
        percentile above which not even one request is expected (p99 of fewer than 100) is not drawn.
    """
    table = latency.table.head(_MOST_ENDPOINTS)
    if table.empty:
        return theme.empty_figure("No percentiles: no request was sent.")
    left_out = len(latency.table) - len(table)
    description = "Latency percentiles of each endpoint; every step to the right is one nine more."
    if left_out:
        description += f" {left_out} endpoints are left out; the table has them."
    if int(table["n"].min()) < _ENOUGH:
        description += " Percentiles an endpoint has too few requests for are not drawn."
    figure = theme.new_figure(description, height=400)
    for place, row in enumerate(table.to_dict("records")):
        _add_percentile_curve(figure, row, place)
    figure.update_xaxes(
        title="percentile",
        tickvals=[at for at, _ in _TICKS],
        ticktext=[text for _, text in _TICKS],
        range=[0.2, 3.1],
    )
    figure.update_yaxes(title="latency, ms", rangemode="tozero")
    figure.update_layout(showlegend=True)
    _scale_latency(figure, table)
    return figure


def rates(latency: Latency) -> go.Figure:
    """Draw latency, and what was achieved, against the rate that was offered.

    Parameters
    ----------
    latency : Latency
        Its ``by_rate``: ``offered_per_s achieved_per_s p50_ms p95_ms p99_ms`` and their ``_censored``.

    Returns
    -------
    plotly.graph_objects.Figure
        Below, the dotted diagonal is where everything offered is achieved.
    """
    table = latency.by_rate
    if table.empty:
        return theme.empty_figure("No rates: no request was sent.")
    table = table.sort_values("offered_per_s")
    most = float(table["offered_per_s"].max())
    description = (
        f"p50, p95 and p99 against the offered rate, up to {most:,.0f} per second; below, the rate achieved."
    )
    figure = _two_panels(description, "offered, requests per s", "latency, ms", "achieved, per s")
    offered = table["offered_per_s"].tolist()
    _add_percentile_lines(figure, table, offered, mode="lines+markers")
    figure.add_scatter(
        x=[0, most],
        y=[0, most],
        yaxis="y2",
        mode="lines",
        name="all of it achieved",
        hoverinfo="skip",
        line={"color": theme.MUTED, "width": 1, "dash": "dot"},
    )
    figure.add_scatter(
        x=offered,
        y=table["achieved_per_s"].tolist(),
        yaxis="y2",
        mode="lines+markers",
        name="achieved",
        line={"color": theme.GREEN, "width": 2},
        marker={"symbol": "diamond", "size": 7},
        hovertemplate="%{x:.1f} offered, %{y:.1f} achieved<extra></extra>",
    )
    figure.layout.yaxis2.update(range=[0, most * 1.08])
    _scale_latency(figure, table)
    _name_lines(figure)
    return figure


def _two_panels(description: str, x_title: str, upper: str, lower: str) -> go.Figure:
    figure = theme.new_figure(description, height=460, bargap=0, showlegend=False)
    figure.update_layout(
        margin={"r": 40},
        xaxis={"title": {"text": x_title}, "anchor": "y2", "nticks": 8},
        yaxis={"title": {"text": upper}, "domain": [0.36, 1.0], "nticks": 6},
        yaxis2={"title": {"text": lower}, "domain": [0.0, 0.26], "rangemode": "tozero", "nticks": 4},
    )
    return figure


def _add_percentile_lines(figure: go.Figure, table: pd.DataFrame, x: Sequence[Any], mode: str) -> None:
    for place, (name, colour, dash) in enumerate(_LINES):
        column = f"{name}_ms"
        if column in table.columns:
            _add_line(figure, x, table[column], name, colour, dash, mode, theme.SYMBOLS[place])
            if f"{name}_censored" in table.columns:
                _add_bounds(figure, x, table[column], table[f"{name}_censored"].eq(True), colour)


def _add_line(
    figure: go.Figure,
    x: Sequence[Any] | pd.Series,
    y: pd.Series,
    name: str,
    colour: str,
    dash: str,
    mode: str = "lines",
    symbol: str = "circle",
) -> None:
    xs, ys = list(x), [float(value) for value in y]
    figure.add_scatter(
        x=xs,
        y=ys,
        mode=mode,
        name=name,
        line={"color": colour, "width": 2, "dash": dash},
        marker={"symbol": symbol, "size": 6},
        hovertemplate=f"{name} %{{y:.3g}} ms<extra></extra>",
    )


def _name_lines(figure: go.Figure) -> None:
    """Write the name of each line of the upper panel at its end, which reads faster than a legend."""
    ends = []
    for trace in figure.data:
        if trace.type == "scatter" and trace.name and "lines" in trace.mode and trace.yaxis is None:
            known = [
                (x, y) for x, y in zip(trace.x, trace.y, strict=True) if y is not None and not math.isnan(y)
            ]
            if known:
                ends.append((known[-1][1], known[-1][0], trace))
    highest = max((y for y, _, _ in ends), default=1.0) or 1.0
    floor = -math.inf
    for y, x, trace in sorted(ends, key=lambda end: end[0]):
        wanted = y / highest * _PANEL_PX
        floor = max(wanted, floor + _LABEL_PX)
        is_log = figure.layout.yaxis.type == "log"
        figure.add_annotation(
            x=x,
            y=math.log10(y) if is_log and y > 0 else y,
            text=trace.name,
            xanchor="left",
            xshift=6,
            yshift=0 if is_log else floor - wanted,
            showarrow=False,
            font={"size": 12, "color": _READABLE.get(trace.line.color, trace.line.color)},
        )


def _add_bounds(figure: go.Figure, x: Sequence[Any], y: pd.Series, is_bound: pd.Series, colour: str) -> None:
    """Mark the values that are only lower bounds with open triangles."""
    places = [place for place, bound in enumerate(is_bound) if bound]
    if places:
        figure.add_scatter(
            x=[x[place] for place in places],
            y=[float(y.iloc[place]) for place in places],
            mode="markers",
            marker={"symbol": "triangle-up-open", "size": 10, "color": colour, "line": {"width": 2}},
            hovertemplate="≥ %{y:.3g} ms: some were never answered<extra></extra>",
        )


def _every_second(table: pd.DataFrame) -> pd.DataFrame:
    """Return a row for every second from the first to the last; those without requests are empty."""
    first, last = int(table["at_s"].min()), int(table["at_s"].max())
    return table.set_index("at_s").reindex([float(at) for at in range(first, last + 1)]).reset_index()


def _add_percentile_curve(figure: go.Figure, row: dict[str, Any], place: int) -> None:
    name = theme.escape(row["endpoint"], 40)
    points = [
        (-math.log10(1 - share), label, float(row[f"{label}_ms"]))
        for label, share in _QUANTILES
        if row.get(f"{label}_ms") is not None
        and not math.isnan(float(row[f"{label}_ms"]))
        and row["n"] * (1 - share) >= 1 - 1e-9
    ]
    if not points:
        return
    bounds = [bool(row.get(f"{label}_censored", False)) for _, label, _ in points]
    lows = [_bound(row, label, "low", value) for _, label, value in points]
    highs = [_bound(row, label, "high", value) for _, label, value in points]
    symbol = theme.SYMBOLS[place % len(theme.SYMBOLS)]
    figure.add_scatter(
        x=[x for x, _, _ in points],
        y=[value for _, _, value in points],
        mode="lines+markers",
        name=name,
        line={
            "color": theme.SERIES[place % len(theme.SERIES)],
            "width": 2,
            "dash": theme.DASHES[place % len(theme.DASHES)],
        },
        marker={"size": 8, "symbol": ["triangle-up-open" if bound else symbol for bound in bounds]},
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [high - value for high, (_, _, value) in zip(highs, points, strict=True)],
            "arrayminus": [value - low for low, (_, _, value) in zip(lows, points, strict=True)],
            "thickness": 1,
            "width": 4,
        },
        hoverinfo="text",
        hovertext=[
            f"<b>{name}</b><br>{label.replace('999', '99.9')} {'≥ ' if bound else ''}{theme.show_ms(value)}"
            f" ({theme.show_ms(low)} to {theme.show_ms(high)})"
            for (_, label, value), bound, low, high in zip(points, bounds, lows, highs, strict=True)
        ],
    )


def _bound(row: dict[str, Any], label: str, side: str, value: float) -> float:
    bound = row.get(f"{label}_{side}_ms")
    return value if bound is None or math.isnan(float(bound)) else float(bound)


def _scale_latency(figure: go.Figure, table: pd.DataFrame) -> None:
    """Use a log axis where the slowest is far above the fastest, else one from zero."""
    values = [
        float(value)
        for name in ("p50_ms", "p95_ms", "p99_ms", "p999_ms")
        if name in table.columns
        for value in table[name]
        if value and not math.isnan(float(value)) and value > 0
    ]
    if values and max(values) / min(values) > _LOG_ABOVE:
        figure.layout.yaxis.update(type="log", dtick="D2" if max(values) / min(values) < 300 else 1)
        figure.layout.yaxis.title.text = "latency, ms (log)"
    else:
        figure.layout.yaxis.update(rangemode="tozero")
