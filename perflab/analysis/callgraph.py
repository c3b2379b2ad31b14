"""The call graph: who calls whom, how often, how fast, and how often it fails.

Built from calls aggregated by both ends, not span by span. What sends no spans of its own (databases,
caches, queues, external peers) is a node all the same, named from the attributes of the calls to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import networkx as nx
import numpy as np
import numpy.typing as npt
import pandas as pd

from perflab.analysis.entity import find_callees, operation_name
from perflab.analysis.peer import EXTERNAL, QUEUE, SERVICE, queue_name, read_peers
from perflab.analysis.population import marked_traces
from perflab.analysis.quantile import quantile_of
from perflab.errors import AnalysisError
from perflab.trace.schema import check_spans
from perflab.trace.tree import Forest, link
from perflab.units import NS_PER_MS

Int64s = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

FOLDS = ("service", "operation")
_QUANTILES = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99}


def call_graph(spans: pd.DataFrame, fold: str = "service") -> nx.DiGraph:
    """Build the call graph of a span table.

    Parameters
    ----------
    spans : pandas.DataFrame
        A span table. Where it holds marked and real traces, only the marked ones are taken.
    fold : {'service', 'operation'}
        What the nodes are besides stores, queues and peers: services, or what services are asked to do
        (``service: POST /orders``).

    Returns
    -------
    networkx.DiGraph
        Nodes are named as in every table and have ``kind`` ("service", "database", "cache", "queue",
        "external"), ``label``, ``requests`` (times it was called or called itself as the top of a trace)
        and ``service``. Edges have ``calls``, ``calls_per_request`` (per root), ``p50_ms p95_ms p99_ms``
        (duration of the calling span; of a message taken from a queue, of its processing), ``error_ratio``
        (calling spans with status "error"), ``gap_ms`` (mean time not spent in the callee; NaN where the
        callee sends no spans), ``retries`` (calls that follow a failed one of the same parent along the
        same edge), ``is_async`` and ``in_cycle``.

        ``graph.graph`` has ``requests`` (roots), ``spans``, ``unpaired_calls`` (CLIENT spans without the
        callee's span that name no store: external peers, or spans that were lost), ``unpaired_servers``
        (SERVER spans whose caller's span is missing), ``cycles`` (lists of nodes that call each other in a
        ring), ``orphans``, ``duplicates`` and ``real_traces_left_out``.

    Raises
    ------
    AnalysisError
        If there is no such ``fold``.
    SchemaError
        If it is no span table.

    Examples
    --------
    >>> from perflab.testing import S, spans
    >>> query = S("stock", "SELECT stock", 20, 30, kind="client", attributes={"db.system.name": "postgresql"})
    >>> server = S("stock", "GET /stock", 10, 50, kind="server", children=[query])
    >>> graph = call_graph(spans([S("order", "GET stock", 0, 60, kind="client", children=[server])]))
    >>> list(graph.edges), graph["order"]["stock"]["gap_ms"]
    ([('order', 'stock'), ('stock', 'postgresql')], 20.0)
    """
    if fold not in FOLDS:
        raise AnalysisError(f"cannot fold a call graph by {fold!r}; there are {', '.join(FOLDS)}")
    check_spans(spans)
    forest = link(spans)
    marked = marked_traces(spans, forest)
    is_taken = forest.head_row >= 0
    if marked.any():
        is_taken &= marked[forest.trace_code]
    calls = _Calls.of(spans, forest, is_taken, by_operation=fold == "operation")
    graph = nx.DiGraph()
    roots = int((is_taken & (forest.depth == 0) & ~forest.is_orphan).sum())
    _add_nodes(graph, calls)
    _add_edges(graph, calls, roots)
    cycles = _flag_cycles(graph)
    is_server = is_taken & np.asarray(spans["kind"].array == "server")
    graph.graph.update(
        requests=roots,
        spans=int(is_taken.sum()),
        unpaired_calls=sum(kind in (EXTERNAL, SERVICE) for kind, _ in calls.leaf_peers),
        unpaired_servers=int((is_server & forest.is_orphan).sum()),
        cycles=cycles,
        orphans=forest.orphans,
        duplicates=forest.duplicates,
        real_traces_left_out=int((~marked).sum()) if marked.any() else 0,
    )
    return graph


@dataclass(frozen=True, eq=False)
class _Calls:
    """All calls of a span table, one row each, and the nodes they connect.

    ``table`` has ``caller callee duration_ns gap_ns is_error is_async parent start_ns``; ``nodes`` the
    attributes of each node; ``leaf_peers`` the (kind, name) of each call that has no callee span.
    """

    table: pd.DataFrame
    nodes: Mapping[str, dict[str, Any]]
    leaf_peers: Sequence[tuple[str, str]]

    @classmethod
    def of(cls, spans: pd.DataFrame, forest: Forest, is_taken: Mask, *, by_operation: bool) -> _Calls:
        kind = spans["kind"].array
        callee_row = find_callees(spans, forest)
        homes, home_of = _homes(spans, forest, by_operation)
        duration = np.maximum(spans["duration_ns"].to_numpy(), 0)
        is_paired = is_taken & (callee_row >= 0)
        # a client span around another one, or around its server in the same service, is not the end
        is_remote = (forest.parent_row >= 0) & np.asarray((kind == "client") | (kind == "server"))
        calls_on = np.zeros(len(spans), dtype=bool)
        calls_on[forest.parent_row[is_remote]] = True
        is_calling = (np.asarray(kind == "client") & ~calls_on & (callee_row < 0)) | np.asarray(
            kind == "producer"
        )
        paired, leaves = np.flatnonzero(is_paired), np.flatnonzero(is_taken & is_calling)
        taken_up = np.flatnonzero(is_taken & np.asarray(kind == "consumer"))

        peers = _peers(spans, leaves)
        queues = _queues(spans, taken_up)
        rows = np.concatenate([paired, leaves, taken_up])
        nan = np.full(len(leaves) + len(taken_up), np.nan)
        caller = [*homes[home_of[paired]], *homes[home_of[leaves]], *queues]
        callee = [
            *homes[home_of[callee_row[paired]]],
            *(name for _, name in peers),
            *homes[home_of[taken_up]],
        ]
        table = pd.DataFrame(
            {
                "caller": pd.array(caller, dtype="str"),
                "callee": pd.array(callee, dtype="str"),
                "duration_ns": duration[rows],
                "gap_ns": np.concatenate(
                    [(duration[paired] - duration[callee_row[paired]]).astype(float), nan]
                ),
                "is_error": np.asarray(spans["status"].array == "error")[rows],
                "is_async": np.asarray((kind == "producer") | (kind == "consumer"))[rows],
                "parent": forest.parent_row[rows],
                "start_ns": spans["start_ns"].to_numpy()[rows],
            }
        )
        return cls(
            table,
            _nodes(spans, forest, is_taken, homes, home_of, [*peers, *((QUEUE, q) for q in queues)]),
            peers,
        )


def _homes(spans: pd.DataFrame, forest: Forest, by_operation: bool) -> tuple[npt.NDArray[Any], Int64s]:
    """Return the names of the nodes that are services or operations, and per row the place of its own."""
    service, name = spans["service"].array, spans["name"].array
    service_code = np.asarray(service.codes, dtype=np.int64)
    if not by_operation:
        return np.array([*service.categories, ""], dtype=object), service_code
    # a span belongs to the nearest one above it, or itself, by which its service was entered
    kind = np.asarray(spans["kind"].array, dtype=object)
    parent = forest.parent_row
    is_door = (parent < 0) | (kind == "server") | (kind == "consumer")
    is_door |= service_code != service_code[parent]
    door = np.where(is_door, np.arange(len(spans)), parent)
    for _ in range(len(spans).bit_length() + 1):
        further = door[door]
        if (further == door).all():
            break
        door = further
    key = service_code * (len(name.categories) + 1) + name.codes
    used, first, place = np.unique(key[door], return_index=True, return_inverse=True)
    doors = door[first]
    texts = [operation_name(service[row], name[row]) for row in doors.tolist()]
    homes = np.empty(len(used), dtype=object)
    homes[:] = texts
    return homes, place.reshape(-1).astype(np.int64)


def _peers(spans: pd.DataFrame, rows: Int64s) -> list[tuple[str, str]]:
    chosen = spans.iloc[rows]
    texts = (chosen[name].astype("str").tolist() for name in ("attributes", "kind", "name"))
    services = set(spans["service"].cat.categories)
    found = []
    for peer in read_peers(*texts):
        # a peer by the name of a service that sends spans: this call's were lost, or it never arrived
        found.append((SERVICE if peer.name in services else peer.kind, peer.name))
    return found


def _queues(spans: pd.DataFrame, rows: Int64s) -> list[str]:
    chosen = spans.iloc[rows]
    pairs = zip(chosen["attributes"].tolist(), chosen["name"].astype("str").tolist(), strict=True)
    return [queue_name(text, name) for text, name in pairs]


def _nodes(
    spans: pd.DataFrame,
    forest: Forest,
    is_taken: Mask,
    homes: npt.NDArray[Any],
    home_of: Int64s,
    virtual: Sequence[tuple[str, str]],
) -> dict[str, dict[str, Any]]:
    kind = spans["kind"].array
    is_request = is_taken & (
        np.asarray(kind == "server") | np.asarray(kind == "consumer") | (forest.depth == 0)
    )
    requests = np.bincount(home_of[is_request], minlength=len(homes))
    services = np.asarray(spans["service"].array, dtype=object)
    used, first = np.unique(home_of[is_taken], return_index=True)
    owner = services[is_taken][first]
    nodes: dict[str, dict[str, Any]] = {
        str(homes[place]): {
            "kind": SERVICE,
            "label": str(homes[place]),
            "requests": int(requests[place]),
            "service": str(service),
        }
        for place, service in zip(used.tolist(), owner.tolist(), strict=True)
    }
    for peer_kind, name in sorted(set(virtual)):
        nodes.setdefault(name, {"kind": peer_kind, "label": name, "requests": 0, "service": ""})
    return nodes


def _add_nodes(graph: nx.DiGraph, calls: _Calls) -> None:
    asked = calls.table["callee"].value_counts()
    for name in sorted(calls.nodes):
        node = dict(calls.nodes[name])
        if node["kind"] != SERVICE:
            node["requests"] = int(asked.get(name, 0))
        graph.add_node(name, **node)


def _add_edges(graph: nx.DiGraph, calls: _Calls, roots: int) -> None:
    table = calls.table.sort_values(["parent", "start_ns"], kind="stable")
    same = ["parent", "caller", "callee"]
    failed_before = table.groupby(same, sort=False)["is_error"].shift(1, fill_value=False)
    table["is_retry"] = failed_before & (table["parent"] >= 0)
    for (caller, callee), group in table.groupby(["caller", "callee"], sort=True):
        ascending = np.sort(group["duration_ns"].to_numpy())
        gaps = group["gap_ns"].to_numpy()
        known = gaps[~np.isnan(gaps)]
        graph.add_edge(
            caller,
            callee,
            calls=len(group),
            calls_per_request=len(group) / max(roots, 1),
            **{name: quantile_of(ascending, q) / NS_PER_MS for name, q in _QUANTILES.items()},
            error_ratio=float(group["is_error"].mean()),
            gap_ms=float(known.mean()) / NS_PER_MS if len(known) else float("nan"),
            retries=int(group["is_retry"].sum()),
            is_async=bool(group["is_async"].all()),
            in_cycle=False,
        )


def _flag_cycles(graph: nx.DiGraph) -> list[list[str]]:
    """Flag the edges that lie on a ring of calls and return the groups of nodes that form them."""
    groups = [
        group
        for group in nx.strongly_connected_components(graph)
        if len(group) > 1 or any(graph.has_edge(node, node) for node in group)
    ]
    for group in groups:
        for caller, callee in graph.subgraph(group).edges:
            graph[caller][callee]["in_cycle"] = True
    return sorted(sorted(group) for group in groups)
