"""One trace as a waterfall: a row per span, its name above its bar, the critical path as a black line.

The name stands on a line of its own above the bar, indented by depth, because a column of names beside the
bars leaves no room for either on a phone. A row is about 30 pixels, so at most `MAX_ROWS` spans are drawn:
those on the critical path and the longest, with everything above them; the caption counts the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from perflab.analysis.criticalpath import critical_path
from perflab.errors import AnalysisError
from perflab.figures import theme
from perflab.trace.schema import check_spans
from perflab.trace.tree import Forest, link
from perflab.units import NS_PER_MS

MAX_ROWS = 200
_ROW_PX = 32
_INDENT_PX = 10
_DEEPEST_INDENT = 12


def waterfall(spans: pd.DataFrame, trace_id: str) -> go.Figure:
    """Draw one trace.

    Parameters
    ----------
    spans : pandas.DataFrame
        A span table that holds the trace; other traces are ignored.
    trace_id : str
        32 hex characters.

    Returns
    -------
    plotly.graph_objects.Figure
        Time in ms since the trace began. Services by colour (and hatch beyond eight), errors hatched and
        marked in words, the critical path as a black line under the bars it runs through. A span whose
        times are missing (no start, or a negative duration) keeps its row and says so.

    Raises
    ------
    SchemaError
        If ``spans`` is no span table.
    AnalysisError
        If the trace is not in the table; the message names some that are.
    """
    check_spans(spans)
    trace = spans[spans["trace_id"] == trace_id]
    if trace.empty:
        known = ", ".join(map(str, spans["trace_id"].drop_duplicates().head(3))) or "none at all"
        raise AnalysisError(f"trace {trace_id!r} is not in this span table; it holds, for example, {known}")
    trace = trace.reset_index(drop=True)
    forest = link(trace)
    segments = _critical_segments(trace, trace_id)
    rows = _rows(trace, forest, set(segments["span_id"]))
    services = spans["service"].drop_duplicates().astype(str)
    return _draw(rows, segments, services, left_out=len(forest.order) - len(rows.frame))


@dataclass(frozen=True)
class _Rows:
    """The rows to draw, top to bottom: columns of the span table plus ``depth at_ms lasts_ms known note``."""

    frame: pd.DataFrame
    origin_ns: int

    @property
    def row_of(self) -> dict[int, int]:
        return {int(span_id): row for row, span_id in enumerate(self.frame["span_id"])}


def _critical_segments(trace: pd.DataFrame, trace_id: str) -> pd.DataFrame:
    """Return the stretches of the critical path: ``span_id start_ns duration_ns``."""
    try:
        path: pd.DataFrame = critical_path(trace).path(trace_id)
    except AnalysisError:
        path = pd.DataFrame({"span_id": [], "start_ns": [], "duration_ns": []})
    return path


def _rows(trace: pd.DataFrame, forest: Forest, critical: set[int]) -> _Rows:
    order = _depth_first(forest, trace["start_ns"].to_numpy())
    frame = trace.iloc[order].copy()
    frame["depth"] = forest.depth[order]
    frame["known"] = (frame["start_ns"] > 0) & (frame["duration_ns"] >= 0)
    known = frame[frame["known"]]
    origin = int(known["start_ns"].min()) if len(known) else 0
    frame["at_ms"] = np.where(frame["known"], (frame["start_ns"] - origin) / NS_PER_MS, 0.0)
    frame["lasts_ms"] = np.where(frame["known"], frame["duration_ns"] / NS_PER_MS, 0.0)
    frame["note"] = np.where(forest.is_orphan[order], "its caller's span is missing", "")
    if len(frame) > MAX_ROWS:
        frame = frame.iloc[_most_telling(frame, forest.parent_row, order, critical)]
    return _Rows(frame.reset_index(drop=True), origin)


def _depth_first(forest: Forest, start_ns: np.ndarray[Any, Any]) -> list[int]:
    """Return the rows parents first, each followed by its children in order of time."""
    children: dict[int, list[int]] = {}
    for row in forest.order[::-1]:  # backwards: what is pushed last is popped first
        children.setdefault(int(forest.parent_row[row]), []).append(int(row))
    for siblings in children.values():
        siblings.sort(key=lambda row: -int(start_ns[row]))
    order: list[int] = []
    stack = list(children.get(-1, []))
    while stack:
        row = stack.pop()
        order.append(row)
        stack.extend(children.get(row, []))
    return order


def _most_telling(
    frame: pd.DataFrame, parent_row: np.ndarray[Any, Any], order: list[int], critical: set[int]
) -> list[int]:
    """Return the places of at most `MAX_ROWS` rows: critical ones, then the longest, with their callers."""
    position = {row: place for place, row in enumerate(order)}
    is_critical = frame["span_id"].isin(critical).to_numpy()
    wanted = np.lexsort((-frame["duration_ns"].to_numpy(), ~is_critical))
    kept: set[int] = set()
    for place in wanted:
        chain = []
        row = order[place]
        while row >= 0 and position[row] not in kept:
            chain.append(position[row])
            row = int(parent_row[row])
        if len(kept) + len(chain) > MAX_ROWS:
            if not kept:
                kept.update(chain[-MAX_ROWS:])
            break
        kept.update(chain)
    return sorted(kept)


def _draw(rows: _Rows, segments: pd.DataFrame, services: pd.Series, left_out: int) -> go.Figure:
    frame = rows.frame
    total_ms = float((frame["at_ms"] + frame["lasts_ms"]).max())
    errors = int((frame["status"] == "error").sum())
    description = (
        f"One trace of {len(frame)} spans from {frame['service'].nunique()} services, "
        f"{theme.show_ms(total_ms)} long, {errors} of them in error."
    )
    if left_out:
        description += f" {left_out} shorter spans are not drawn."
    figure = theme.new_figure(description, height=len(frame) * _ROW_PX + 96, barmode="overlay", bargap=0)
    _add_bars(figure, frame, services)
    _add_critical_path(figure, rows, segments)
    labels: list[dict[str, Any]] = []
    for row, span in enumerate(frame.itertuples()):
        labels.append(
            {
                "text": _label(span),
                "xref": "paper",
                "x": 0,
                "xanchor": "left",
                "xshift": min(span.depth, _DEEPEST_INDENT) * _INDENT_PX,
                "y": row + 0.27,
                "yanchor": "middle",
                "showarrow": False,
                "font": {"size": 12},
            }
        )
    figure.update_layout(annotations=labels)  # at once: added singly, each is checked again with every next
    width_ms = total_ms if total_ms > 0 else 1.0
    figure.update_xaxes(
        title="milliseconds since the trace began", range=[-0.005 * width_ms, 1.01 * width_ms], nticks=6
    )
    figure.update_yaxes(visible=False, range=[len(frame) + 0.1, 0], fixedrange=True)
    return figure


def _add_bars(figure: go.Figure, frame: pd.DataFrame, services: pd.Series) -> None:
    colour, hatch = theme.colours(services), theme.hatches(services)
    for service, part in frame[frame["known"]].groupby("service", observed=True, sort=True):
        name = str(service)
        shapes = np.where(part["status"] == "error", "x", hatch[name])
        figure.add_bar(
            name=theme.escape(name, 40),
            orientation="h",
            base=part["at_ms"].tolist(),
            x=part["lasts_ms"].tolist(),
            y=(part.index + 0.74).tolist(),
            width=0.34,
            marker={
                "color": theme.tint(colour[name], 0.55),
                "line": {"color": colour[name], "width": 1},
                "pattern": {
                    "shape": shapes.tolist(),
                    "fillmode": "overlay",
                    "fgcolor": theme.INK,
                    "size": 6,
                    "solidity": 0.3,
                },
            },
            hoverinfo="text",
            hovertext=[_hover(span) for span in part.itertuples()],
        )


def _add_critical_path(figure: go.Figure, rows: _Rows, segments: pd.DataFrame) -> None:
    row_of = rows.row_of
    drawn = segments[segments["span_id"].isin(row_of)]
    if drawn.empty:
        return
    figure.add_bar(
        name="critical path",
        orientation="h",
        base=((drawn["start_ns"] - rows.origin_ns) / NS_PER_MS).tolist(),
        x=(drawn["duration_ns"] / NS_PER_MS).tolist(),
        y=[row_of[int(span_id)] + 0.96 for span_id in drawn["span_id"]],
        width=0.1,
        marker={"color": theme.BLACK, "line": {"color": theme.BLACK, "width": 1}},
        hoverinfo="skip",
    )


def _label(span: Any) -> str:
    text = f"<b>{theme.escape(span.service, 24)}</b> {theme.escape(span.name, 48)}"
    text += f"  <span style='color:{theme.MUTED}'>{_lasting(span)}</span>"
    if span.status == "error":
        text += f"  <span style='color:{theme.ALARM}'><b>✕ error</b></span>"
    if span.note:
        text += f"  <span style='color:{theme.MUTED}'>({span.note})</span>"
    return text


def _lasting(span: Any) -> str:
    return theme.show_ms(span.lasts_ms) if span.known else "time missing"


def _hover(span: Any) -> str:
    lines = [
        f"<b>{theme.escape(span.service, 40)}: {theme.escape(span.name)}</b>",
        f"{span.kind}, {_lasting(span)}, from {span.at_ms:,.3f} ms",
        f"span {int(span.span_id):016x}" + (f" on {theme.escape(span.host, 40)}" if span.host else ""),
    ]
    if span.status == "error":
        lines.append("in error" + (f": {theme.escape(span.outcome, 40)}" if span.outcome else ""))
    if span.note:
        lines.append(span.note)
    return "<br>".join(lines)
