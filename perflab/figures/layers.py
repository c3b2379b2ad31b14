"""Places the nodes of a call graph on layers, callers above callees.

Longest-path layering, then median sweeps to take out crossings (Sugiyama, Tagawa, Toda 1981; medians as
Gansner, Koutsofios, North, Vo 1993). Enough for the 60 nodes a reader can take in; no Graphviz to install.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from itertools import pairwise

import networkx as nx
import numpy as np

STEP_WIDTH = 0.25
"""Room for an edge that passes a layer, in widths of a node."""

_SWEEPS = 12


@dataclass(frozen=True)
class Layout:
    """Where things stand.

    Attributes
    ----------
    layer : dict
        Node -> layer, 0 at the top.
    x : dict
        Node -> horizontal place in 0-1.
    bends : dict
        Edge (caller, callee) -> ``(x, layer)`` of the places it passes on the layers between, from the
        caller to the callee.
    reversed_edges : frozenset
        Edges that run upward because they close a cycle.
    widest : float
        Widths of a node that the fullest layer takes; an edge that passes takes `STEP_WIDTH` of one.
    """

    layer: dict[Hashable, int]
    x: dict[Hashable, float]
    bends: dict[tuple[Hashable, Hashable], list[tuple[float, int]]]
    reversed_edges: frozenset[tuple[Hashable, Hashable]]
    widest: float


def lay_out(graph: nx.DiGraph) -> Layout:
    """Place the nodes of a directed graph.

    Parameters
    ----------
    graph : networkx.DiGraph
        Cycles and self-loops allowed.

    Returns
    -------
    Layout
        The same for the same nodes and edges, whatever their order.
    """
    acyclic, reversed_edges = _without_cycles(graph)
    layer = {node: depth for depth, nodes in enumerate(nx.topological_generations(acyclic)) for node in nodes}
    stepped, chains = _with_steps(acyclic, layer)
    rows = _ordered_rows(stepped, layer)
    width = {node: 1.0 if node in graph else STEP_WIDTH for node in stepped}
    widest = max((sum(width[node] for node in row) for row in rows), default=1.0)
    x = _spread(stepped, rows, {node: part / widest for node, part in width.items()})
    bends = {}
    for (upper, lower), steps in chains.items():
        places = [(x[step], layer[step]) for step in steps]
        if (lower, upper) in reversed_edges:
            bends[(lower, upper)] = places[::-1]
        if graph.has_edge(upper, lower):
            bends[(upper, lower)] = places
    real = {node: place for node, place in x.items() if node in graph}
    return Layout({node: layer[node] for node in real}, real, bends, frozenset(reversed_edges), widest)


def _without_cycles(graph: nx.DiGraph) -> tuple[nx.DiGraph, set[tuple[Hashable, Hashable]]]:
    """Return a copy with every edge that closes a cycle turned round (self-loops dropped)."""
    acyclic = nx.DiGraph()
    acyclic.add_nodes_from(sorted(graph, key=str))
    turned = set()
    state: dict[Hashable, int] = {}
    entries = sorted(graph, key=lambda node: (graph.in_degree(node) > 0, str(node)))
    for entry in entries:
        if entry in state:
            continue
        state[entry] = 1
        stack = [(entry, iter(sorted(graph.successors(entry), key=str)))]
        while stack:
            node, callees = stack[-1]
            callee = next(callees, None)
            if callee is None:
                state[node] = 2
                stack.pop()
            elif callee == node:
                continue
            elif state.get(callee) == 1:
                turned.add((node, callee))
                acyclic.add_edge(callee, node)
            else:
                acyclic.add_edge(node, callee)
                if callee not in state:
                    state[callee] = 1
                    stack.append((callee, iter(sorted(graph.successors(callee), key=str))))
    return acyclic, turned


def _with_steps(
    graph: nx.DiGraph, layer: dict[Hashable, int]
) -> tuple[nx.DiGraph, dict[tuple[Hashable, Hashable], list[Hashable]]]:
    """Cut edges that span several layers into steps of one; new nodes are added to ``layer``."""
    stepped = nx.DiGraph()
    stepped.add_nodes_from(graph)
    chains: dict[tuple[Hashable, Hashable], list[Hashable]] = {}
    for upper, lower in graph.edges:
        steps: list[Hashable] = [("step", upper, lower, at) for at in range(layer[upper] + 1, layer[lower])]
        for at, step in enumerate(steps, start=layer[upper] + 1):
            layer[step] = at
        nx.add_path(stepped, [upper, *steps, lower])
        chains[(upper, lower)] = steps
    return stepped, chains


def _ordered_rows(graph: nx.DiGraph, layer: dict[Hashable, int]) -> list[list[Hashable]]:
    """Return the nodes of each layer from left to right, with as few crossings as the sweeps find."""
    depth = max(layer.values(), default=-1) + 1
    rows: list[list[Hashable]] = [[] for _ in range(depth)]
    for node in sorted(graph, key=str):
        rows[layer[node]].append(node)
    best, fewest = [list(row) for row in rows], _crossings(graph, rows)
    for sweep in range(_SWEEPS):
        downward = sweep % 2 == 0
        for at in range(1, depth) if downward else range(depth - 2, -1, -1):
            fixed = {node: place for place, node in enumerate(rows[at - 1 if downward else at + 1])}
            near = graph.predecessors if downward else graph.successors
            medians = {
                node: float(np.median(places)) if (places := [fixed[other] for other in near(node)]) else None
                for node in rows[at]
            }
            rows[at] = _sorted_by_median(rows[at], medians)
        crossings = _crossings(graph, rows)
        if crossings < fewest:
            best, fewest = [list(row) for row in rows], crossings
    return best


def _sorted_by_median(row: list[Hashable], medians: dict[Hashable, float | None]) -> list[Hashable]:
    """Sort the nodes that have a median; the others keep their places."""
    movable = sorted(
        (node for node in row if medians[node] is not None), key=lambda node: medians[node] or 0.0
    )
    following = iter(movable)
    return [node if medians[node] is None else next(following) for node in row]


def _crossings(graph: nx.DiGraph, rows: list[list[Hashable]]) -> int:
    total = 0
    for upper, lower in pairwise(rows):
        place = {node: at for at, node in enumerate(lower)}
        ends = [at for node in upper for at in sorted(place[other] for other in graph.successors(node))]
        array = np.asarray(ends)
        total += int(sum(np.count_nonzero(array[:at] > end) for at, end in enumerate(ends)))
    return total


def _spread(
    graph: nx.DiGraph, rows: list[list[Hashable]], width: dict[Hashable, float]
) -> dict[Hashable, float]:
    """Give each node a place in 0-1: side by side in the middle, then pulled to its neighbours' mean."""
    x: dict[Hashable, float] = {}
    for row in rows:
        at = (1 - sum(width[node] for node in row)) / 2
        for node in row:
            x[node] = at + width[node] / 2
            at += width[node]
    for sweep in range(_SWEEPS):
        for row in rows if sweep % 2 == 0 else rows[::-1]:
            wanted = [_pull(graph, node, x) for node in row]
            x.update(zip(row, _kept_apart(wanted, [width[node] for node in row]), strict=True))
    return x


def _pull(graph: nx.DiGraph, node: Hashable, x: dict[Hashable, float]) -> float:
    near = [x[other] for other in (*graph.predecessors(node), *graph.successors(node))]
    return float(np.mean(near)) if near else x[node]


def _kept_apart(wanted: list[float], width: list[float]) -> list[float]:
    """Return places near the wanted ones, in the same order, that neither overlap nor leave 0-1."""
    rightward = _packed(wanted, width)
    # a pass from the left leaves everything leaning right: take the mean with a pass from the right
    leftward = _packed([1 - want for want in reversed(wanted)], width[::-1])
    return [(right + 1 - left) / 2 for right, left in zip(rightward, reversed(leftward), strict=True)]


def _packed(wanted: list[float], width: list[float]) -> list[float]:
    """Return places from left to right: where wanted, but right of the one before, with room for the rest."""
    places: list[float] = []
    edge, rest = 0.0, sum(width)
    for want, room in zip(wanted, width, strict=True):
        place = max(min(want, 1 - rest + room / 2), edge + room / 2)
        places.append(place)
        edge = place + room / 2
        rest -= room
    return places
