"""The call graph: who calls whom, how often, and where the time is.

Nodes are a fixed number of pixels, so that their names stay readable at any width; shapes say what a node is
(and so does a word in it), colour says how much of the critical time is its own, a ring and a sentence point
at the bottleneck.
"""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import networkx as nx
import plotly.graph_objects as go

from perflab.figures import theme
from perflab.figures.callgraph_outline import NODE_H, NODE_W, curve, label_places, outline
from perflab.figures.layers import Layout, lay_out
from perflab.trace.schema import GENERATOR_SERVICE

if TYPE_CHECKING:
    from perflab.analysis.criticalpath import CriticalPath

MAX_NODES = 60
MAX_LABELS = 30
_LAYER_PX, _GAP = 116, 6
_ARROW = 7
_TYPICAL_PX = 800
_REST = "others"


def call_graph(
    graph: nx.DiGraph,
    bottleneck: Mapping[str, Any] | None = None,
    critical_path: CriticalPath | None = None,
) -> go.Figure:
    """Draw a call graph, callers above callees.

    Parameters
    ----------
    graph : networkx.DiGraph
        As `perflab.call_graph` returns it: nodes with ``kind`` (service, database, cache, queue, external),
        edges with ``calls calls_per_request gap_ms error_ratio is_async``; what is missing is not shown.
    bottleneck : mapping, optional
        ``Bottlenecks.first``: the row that is ringed and named.
    critical_path : CriticalPath, optional
        Colours nodes and writes in them their share of the critical time.

    Returns
    -------
    plotly.graph_objects.Figure
        Graphs of more than `MAX_NODES` nodes have the least called folded into one.
    """
    if not len(graph):
        return theme.empty_figure("No call graph: there are no spans of services.")
    folded, hidden = _fold(graph)
    shares = _shares(critical_path)
    layout = lay_out(folded)
    depth = max(layout.layer.values()) + 1
    plot_px = depth * _LAYER_PX
    figure = theme.new_figure(
        _description(folded, hidden, bottleneck),
        height=plot_px + 52,
        margin={"l": 4, "r": 4, "t": 44, "b": 8},
        showlegend=False,
    )
    figure.layout.meta = {
        **figure.layout.meta,
        "min_width": max(math.ceil(layout.widest * (NODE_W + _GAP)) + 8, 300),
    }
    figure.update_xaxes(visible=False, range=[0, 1], fixedrange=True)
    figure.update_yaxes(visible=False, range=[plot_px, 0], fixedrange=True, automargin=False)
    stage = _Stage(folded, layout, shares, bottleneck or {})
    _add_edges(figure, stage)
    _add_nodes(figure, stage)
    _add_bottleneck(figure, stage)
    figure.update_layout(shapes=stage.shapes, annotations=stage.words)
    return figure


@dataclass(frozen=True)
class _Stage:
    graph: nx.DiGraph
    layout: Layout
    shares: Mapping[str, float]
    bottleneck: Mapping[str, Any]
    shapes: list[dict[str, Any]] = field(default_factory=list)
    words: list[dict[str, Any]] = field(default_factory=list)

    def draw(self, **shape: Any) -> None:
        """Put a shape aside; all are added at once, since plotly checks all that are there with every one."""
        self.shapes.append(shape)

    def write(self, **annotation: Any) -> None:
        """Put words aside, without an arrow."""
        self.words.append({"showarrow": False, **annotation})

    def at(self, node: Hashable) -> tuple[float, float]:
        return self.layout.x[node], (self.layout.layer[node] + 0.5) * _LAYER_PX

    @property
    def slow_edge(self) -> tuple[str, str] | None:
        """Caller and callee, where the bottleneck is an edge."""
        if self.bottleneck.get("kind") != "edge":
            return None
        return str(self.bottleneck.get("caller")), str(self.bottleneck.get("callee"))


@dataclass(frozen=True)
class _Edge:
    caller: Hashable
    callee: Hashable
    data: Mapping[str, Any]
    points: list[tuple[float, float]]


def _fold(graph: nx.DiGraph) -> tuple[nx.DiGraph, int]:
    """Return the graph with all but the `MAX_NODES` - 1 busiest nodes made one, and how many those were."""
    if len(graph) <= MAX_NODES:
        return graph, 0
    calls = {
        node: sum(int(data.get("calls", 0)) for _, _, data in graph.in_edges(node, data=True))
        + sum(int(data.get("calls", 0)) for _, _, data in graph.out_edges(node, data=True))
        for node in graph
    }
    kept = set(sorted(graph, key=lambda node: (-calls[node], str(node)))[: MAX_NODES - 1])
    folded = nx.DiGraph()
    folded.add_nodes_from((node, graph.nodes[node]) for node in graph if node in kept)
    folded.add_node(_REST, kind="folded", label=f"{len(graph) - len(kept)} others")
    for caller, callee, data in graph.edges(data=True):
        ends = (caller if caller in kept else _REST, callee if callee in kept else _REST)
        if _REST not in ends:
            folded.add_edge(*ends, **data)
        elif ends[0] != ends[1]:
            before = folded.get_edge_data(*ends, default={"calls": 0})["calls"]
            folded.add_edge(*ends, calls=before + int(data.get("calls", 0)))
    return folded, len(graph) - len(kept)


def _shares(critical_path: CriticalPath | None) -> dict[str, float]:
    """Return the share of critical time of each service (its operations) and each edge (its own)."""
    if critical_path is None:
        return {}
    shares: dict[str, float] = {}
    for row in critical_path.table.itertuples():
        name = str(row.service) if row.kind == "operation" else str(row.entity)
        shares[name] = shares.get(name, 0.0) + float(row.share_ratio)
    return shares


def _description(graph: nx.DiGraph, hidden: int, bottleneck: Mapping[str, Any] | None) -> str:
    edges = graph.number_of_edges()
    text = f"Call graph of {len(graph)} nodes and {edges} edges, callers above callees."
    if edges > MAX_LABELS:
        text += f" The {MAX_LABELS} edges that matter most are labelled; point at the others."
    if hidden:
        text += f" The {hidden} least called nodes are folded into one."
    if bottleneck:
        text += f" The bottleneck is {bottleneck.get('entity')}."
    return text


def _add_edges(figure: go.Figure, stage: _Stage) -> None:
    heads: dict[str, list[Any]] = {"x": [], "y": [], "symbol": [], "colour": []}
    drawn: list[_Edge] = []
    for caller, callee, data in sorted(
        stage.graph.edges(data=True), key=lambda edge: (str(edge[0]), str(edge[1]))
    ):
        if caller == callee:
            continue
        is_slow = stage.slow_edge == (str(caller), str(callee))
        upward = (caller, callee) in stage.layout.reversed_edges
        colour = theme.VERMILLION if is_slow else "#8a94a3"
        points = _points(stage, caller, callee, upward)
        stage.draw(
            type="path",
            path=curve(points),
            layer="below",
            line={
                "color": colour,
                "width": 4 if is_slow else 1.6,
                "dash": "dot" if data.get("is_async") else "solid",
            },
        )
        heads["x"].append(points[-1][0])
        heads["y"].append(points[-1][1] + (_ARROW if upward else -_ARROW) / 2)
        heads["symbol"].append("triangle-up" if upward else "triangle-down")
        heads["colour"].append(colour)
        drawn.append(_Edge(caller, callee, data, points))
    figure.add_scatter(
        x=heads["x"],
        y=heads["y"],
        mode="markers",
        hoverinfo="skip",
        marker={"symbol": heads["symbol"], "size": 9, "color": heads["colour"]},
    )
    _add_edge_labels(figure, stage, drawn)


def _points(stage: _Stage, caller: Hashable, callee: Hashable, upward: bool) -> list[tuple[float, float]]:
    half = NODE_H / 2
    (x1, y1), (x2, y2) = stage.at(caller), stage.at(callee)
    start, end = ((x1, y1 - half), (x2, y2 + half)) if upward else ((x1, y1 + half), (x2, y2 - half))
    bends = stage.layout.bends.get((caller, callee), [])
    return [start, *((x, (layer + 0.5) * _LAYER_PX) for x, layer in bends), end]


def _add_edge_labels(figure: go.Figure, stage: _Stage, edges: list[_Edge]) -> None:
    """Label the slow edge, then those with most critical time and calls; all have a hover box."""

    def weight(edge: _Edge) -> tuple[bool, bool, float, int]:
        ends = (str(edge.caller), str(edge.callee))
        share = stage.shares.get(" -> ".join(ends), 0.0)
        return stage.slow_edge == ends, _REST not in ends, share, int(edge.data.get("calls", 0))

    ranked = sorted(edges, key=weight, reverse=True)
    labels = [
        _edge_label(edge.data) if rank < MAX_LABELS and _REST not in (edge.caller, edge.callee) else ""
        for rank, edge in enumerate(ranked)
    ]
    places = label_places(
        [edge.points for edge in ranked],
        [_size(label) for label in labels],
        [stage.at(node) for node in stage.graph],
        max(_TYPICAL_PX, stage.layout.widest * (NODE_W + _GAP)),
    )
    for (x, y), label in zip(places, labels, strict=True):
        if label:
            stage.write(
                x=x,
                y=y,
                text=label,
                font={"size": 10, "color": theme.MUTED},
                bgcolor="rgba(255,255,255,0.88)",
                borderpad=1,
            )
    figure.add_scatter(
        x=[x for x, _ in places],
        y=[y for _, y in places],
        mode="markers",
        marker={"size": 24, "opacity": 0},
        hoverinfo="text",
        hovertext=[_edge_hover(edge) for edge in ranked],
    )


def _size(label: str) -> tuple[float, float]:
    """Return about how many pixels a label takes."""
    lines = re.sub(r"<(?!br>)[^>]*>", "", label).split("<br>") if label else []
    return max((len(line) for line in lines), default=0) * 5.4, len(lines) * 13.0


def _edge_label(data: Mapping[str, Any]) -> str:
    lines = []
    per_request = data.get("calls_per_request")
    if _is_number(per_request):
        lines.append(f"{per_request:.3g}/req" + (" async" if data.get("is_async") else ""))
    elif data.get("calls"):
        lines.append(f"{int(data['calls']):,} calls")
    if _is_number(data.get("gap_ms")):
        lines.append(f"gap {theme.show_ms(data['gap_ms'])}")
    elif _is_number(data.get("p50_ms")):
        lines.append(f"p50 {theme.show_ms(data['p50_ms'])}")
    if _is_number(data.get("error_ratio")) and data["error_ratio"] > 0:
        lines.append(
            f"<span style='color:{theme.ALARM}'>{theme.show_ratio(data['error_ratio'])} errors</span>"
        )
    return "<br>".join(lines)


def _edge_hover(edge: _Edge) -> str:
    data = edge.data
    lines = [f"<b>{theme.escape(edge.caller, 40)} -&gt; {theme.escape(edge.callee, 40)}</b>"]
    if data.get("calls"):
        lines.append(f"{int(data['calls']):,} calls" + (", asynchronous" if data.get("is_async") else ""))
    for name in ("p50_ms", "p95_ms", "p99_ms", "gap_ms"):
        if _is_number(data.get(name)):
            lines.append(f"{name.removesuffix('_ms')} {theme.show_ms(data[name])}")
    if _is_number(data.get("error_ratio")):
        lines.append(f"errors {theme.show_ratio(data['error_ratio'])}")
    return "<br>".join(lines)


def _add_nodes(figure: go.Figure, stage: _Stage) -> None:
    most = max(stage.shares.values(), default=0.0) or 1.0
    hover = []
    for node, data in stage.graph.nodes(data=True):
        x, y = stage.at(node)
        kind = str(data.get("kind", "service"))
        share = stage.shares.get(str(node))
        strength = 0.1 + 0.6 * (share or 0.0) / most
        stage.draw(
            type="path",
            path=outline(kind, y),
            xsizemode="pixel",
            xanchor=x,
            fillcolor=theme.tint(theme.ORANGE if share else theme.BLUE, strength if share else 0.08),
            line={
                "color": theme.MUTED,
                "width": 1.2,
                "dash": "dash" if kind in ("external", "folded") else "solid",
            },
        )
        second = kind if share is None else f"{theme.show_ratio(share)} of time"
        if share is not None and kind != "service":
            second = f"{kind} {theme.show_ratio(share)}"
        name = str(data.get("label", node))
        short = name.split(" ", 1)[-1] if kind in ("database", "cache", "queue") else name
        if short == GENERATOR_SERVICE:
            second = "the test's load"
        stage.write(
            x=x,
            y=y + (4 if kind == "database" else 0),
            text=f"<b>{theme.escape(short, 14)}</b><br><span style='font-size:10px'>{second}</span>",
            font={"size": 12 if len(short) <= 10 else 11, "color": theme.INK},
        )
        hover.append(_node_hover(name, kind, share, stage.graph.has_edge(node, node)))
    places = [stage.at(node) for node in stage.graph]
    figure.add_scatter(
        x=[x for x, _ in places],
        y=[y for _, y in places],
        mode="markers",
        marker={"size": NODE_H, "opacity": 0},
        hoverinfo="text",
        hovertext=hover,
    )


def _node_hover(name: Any, kind: str, share: float | None, calls_itself: bool) -> str:
    lines = [f"<b>{theme.escape(name, 60)}</b>", kind]
    if share is not None:
        lines.append(f"{theme.show_ratio(share)} of the critical time is its own")
    if calls_itself:
        lines.append("calls itself")
    return "<br>".join(lines)


def _add_bottleneck(figure: go.Figure, stage: _Stage) -> None:
    row = stage.bottleneck
    if not row:
        return
    share = row.get("share_ratio")
    text = f"<b>Bottleneck: {theme.escape(row.get('entity'), 44)}</b>"
    if share is not None and _is_number(share):
        text += f", {theme.show_ratio(float(share))} of the critical time"
    stage.write(
        text=text,
        xref="paper",
        yref="paper",
        align="left",
        x=0,
        xanchor="left",
        y=1,
        yanchor="bottom",
        yshift=12,
        font={"size": 13, "color": theme.ALARM},
    )
    ringed = stage.slow_edge or (str(row.get("service")),)
    if not stage.slow_edge:
        _add_tag(figure, stage, ringed[0])
    for node in stage.graph:
        if str(node) not in ringed:
            continue
        x, y = stage.at(node)
        stage.draw(
            type="path",
            path=outline("service", y, grow=5),
            xsizemode="pixel",
            xanchor=x,
            line={
                "color": theme.VERMILLION,
                "width": 3,
                "dash": "dash" if stage.slow_edge else "solid",
            },
        )


def _add_tag(figure: go.Figure, stage: _Stage, service: str) -> None:
    """Write "bottleneck" on the ring, and tell the page where to look first on a narrow screen."""
    for node in stage.graph:
        if str(node) == service:
            x, y = stage.at(node)
            figure.layout.meta = {**figure.layout.meta, "focus_ratio": x}
            stage.write(
                x=x,
                y=y + NODE_H / 2 + 5,
                text="<b>bottleneck</b>",
                font={"size": 10, "color": theme.PAPER},
                bgcolor=theme.ALARM,
                borderpad=2,
            )


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not math.isnan(float(value))
