"""The critical path as a flame chart: how the time of the slowest way through adds up, call by call.

Plotly's icicle draws nothing when children sum past their parent and takes minutes beyond a thousand
frames, so the frames are plain horizontal bars with a base. Widths are exclusive critical time: a frame is
as wide as its own time and its children's together, so a row can never be wider than the one above.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd
import plotly.graph_objects as go

from perflab.figures import theme
from perflab.units import NS_PER_MS

if TYPE_CHECKING:
    from perflab.analysis.criticalpath import CriticalPath

MAX_FRAMES = 1000
_SMALLEST_RATIO = 0.001
_ROW_PX = 30
_EDGE = " -> "


def flame(critical_path: CriticalPath) -> go.Figure:
    """Draw where the critical time goes, outermost call on top.

    Parameters
    ----------
    critical_path : CriticalPath
        Its ``stacks``: one row per call path with the exclusive time (ns, all requests together) of the
        last entity of the path; and its ``counts["requests"]``.

    Returns
    -------
    plotly.graph_objects.Figure
        One bar per frame: width is the share of all critical time, colour the service (edges between
        services are grey and hatched), the label stands where it fits, everything is in the hover box.
        Frames under 0.1 % are left out and their time is counted in the description.
    """
    root = _tree(critical_path.stacks)
    traces = max(int(critical_path.counts["requests"]), 1)
    if not root.total_ns:
        return theme.empty_figure("No critical path: there is no complete trace to draw.")
    frames, hidden_ns = _lay_out(root)
    deepest = max(frame.depth for frame in frames)
    each = theme.show_ms(root.total_ns / traces / NS_PER_MS)
    description = (
        f"Critical-path flame chart of {traces:,} requests, {each} each on average; "
        "a frame's width is its share of that time."
    )
    if hidden_ns:
        description += f" Frames too small to draw hold {theme.show_ratio(hidden_ns / root.total_ns)}."
    figure = theme.new_figure(
        description,
        height=(deepest + 1) * _ROW_PX + 100,
        barmode="overlay",
        bargap=0,
        uniformtext={"mode": "hide", "minsize": 11},
    )
    figure.layout.meta = {**figure.layout.meta, "click": "zoom"}
    _add_frames(figure, frames, _services(critical_path, frames), root.total_ns, traces)
    figure.update_xaxes(title="share of critical time", range=[0, 100], ticksuffix=" %", nticks=6)
    figure.update_yaxes(visible=False, range=[deepest + 0.55, -0.55], fixedrange=True)
    return figure


@dataclass
class _Frame:
    entity: str
    own_ns: int = 0
    total_ns: int = 0
    depth: int = -1
    left_ns: int = 0
    children: dict[str, _Frame] = field(default_factory=dict)


def _tree(stacks: pd.DataFrame) -> _Frame:
    """Return the root of all stacks, with totals filled in."""
    root = _Frame("")
    for stack, own_ns in zip(stacks["stack"], stacks["exclusive_ns"], strict=True):
        frame = root
        frame.total_ns += int(own_ns)
        for entity in stack.split(";"):
            frame = frame.children.setdefault(entity, _Frame(entity))
            frame.total_ns += int(own_ns)
        frame.own_ns += int(own_ns)
    return root


def _lay_out(root: _Frame) -> tuple[list[_Frame], int]:
    """Return the frames wide enough to draw, placed, widest first within a row; and the time left out."""
    floor = root.total_ns * _SMALLEST_RATIO
    placed: list[_Frame] = []
    hidden_ns = 0
    waiting = [root]
    while waiting:
        frame = waiting.pop(0)
        left = frame.left_ns
        for child in sorted(frame.children.values(), key=lambda child: (-child.total_ns, child.entity)):
            if child.total_ns < floor or len(placed) >= MAX_FRAMES:
                hidden_ns += child.total_ns
                continue
            child.depth, child.left_ns = frame.depth + 1, left
            left += child.total_ns
            placed.append(child)
            waiting.append(child)
    return placed, hidden_ns


def _services(critical_path: CriticalPath, frames: list[_Frame]) -> list[str]:
    """Return all services of the span table, so that a service has the same colour in every figure of it."""
    drawn = {_service(frame.entity) for frame in frames} - {""}
    return sorted(drawn | set(critical_path.walked.spans["service"].drop_duplicates().astype(str)))


def _add_frames(
    figure: go.Figure, frames: list[_Frame], services: list[str], total_ns: int, traces: int
) -> None:
    colour, hatch = theme.colours(services), theme.hatches(services)
    for service in [*services, ""]:
        part = [frame for frame in frames if _service(frame.entity) == service]
        if not part:
            continue
        paint = colour.get(service, "#8a94a3")
        strength = 0.42 if service else 0.14
        figure.add_bar(
            name=theme.escape(service, 40) if service else "between services",
            orientation="h",
            base=[100 * frame.left_ns / total_ns for frame in part],
            x=[100 * frame.total_ns / total_ns for frame in part],
            y=[frame.depth for frame in part],
            width=0.92,
            text=[_label(frame.entity) for frame in part],
            textposition="inside",
            insidetextanchor="start",
            textangle=0,
            textfont={"color": theme.INK, "size": 11},
            marker={
                "color": theme.tint(paint, strength),
                "line": {"color": theme.PAPER, "width": 1.5},
                "pattern": {
                    "shape": hatch.get(service, "/"),
                    "fillmode": "overlay",
                    "fgcolor": theme.tint(paint, 2 * strength),
                    "size": 8,
                    "solidity": 0.16,
                },
            },
            hoverinfo="text",
            hovertext=[_hover(frame, total_ns, traces) for frame in part],
        )


def _service(entity: str) -> str:
    """Return the service of an operation, and "" for an edge."""
    if _EDGE in entity and ": " not in entity:
        return ""
    return entity.split(": ", 1)[0]


def _label(entity: str) -> str:
    return theme.escape(entity if _service(entity) == "" else entity.split(": ", 1)[-1], 40)


def _hover(frame: _Frame, total_ns: int, traces: int) -> str:
    def told(part_ns: int) -> str:
        return (
            f"{theme.show_ratio(part_ns / total_ns)}, {theme.show_ms(part_ns / traces / NS_PER_MS)} a request"
        )

    lines = (
        f"<b>{theme.escape(frame.entity)}</b>",
        f"with all it calls: {told(frame.total_ns)}",
        f"its own: {told(frame.own_ns)}",
    )
    return "<br>".join(lines)
