"""The tables made of walked traces: per request, per entity, per stretch of time.

All sums are of int64 ns, so that they agree to the nanosecond whatever they are grouped by.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from perflab.analysis.entity import Entities, operation_name
from perflab.analysis.quantile import nearest_rank
from perflab.analysis.walk import ON_PATH, Tree, Walk
from perflab.trace.tree import Forest
from perflab.units import NS_PER_MS

Int64s = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_EXEMPLARS = 3
_QUANTILES = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99}


@dataclass(frozen=True, eq=False)
class Walked:
    """A span table on its critical paths: the arrays that the tables are made of.

    Attributes
    ----------
    spans : pandas.DataFrame
        The table as it was given.
    forest : Forest
    entities : Entities
    tree : Tree
    walk : Walk
    roots : int64[requests]
        Row of each request's root, in order of time.
    request : int64[n]
        Per row the number of its request (the row of ``entries``); -1 where it belongs to none.
    """

    spans: pd.DataFrame
    forest: Forest
    entities: Entities
    tree: Tree
    walk: Walk
    roots: Int64s
    request: Int64s

    @classmethod
    def of(
        cls, spans: pd.DataFrame, forest: Forest, entities: Entities, tree: Tree, walk: Walk, is_root: Mask
    ) -> Walked:
        """Put the arrays together; requests are numbered in order of time, then of trace id and tie."""
        roots = np.flatnonzero(is_root)
        roots = roots[np.lexsort((tree.tie[roots], forest.trace_code[roots], tree.start_ns[roots]))]
        number = np.full(len(spans) + 1, -1, dtype=np.int64)  # the last one for rows without a head
        number[roots] = np.arange(len(roots))
        return cls(spans, forest, entities, tree, walk, roots, number[forest.head_row])

    def rows(self, lane: int) -> Int64s:
        """Return the rows of one lane, parents before children."""
        rows: Int64s = self.forest.order[self.walk.lane[self.forest.order] == lane]
        return rows


def request_table(walked: Walked) -> pd.DataFrame:
    """Return one row per request: ``trace_id entry duration_ns start_ns span_id``."""
    spans, roots = walked.spans, walked.roots
    service, name = spans["service"].array[roots], spans["name"].array[roots]
    pair = service.codes.astype(np.int64) * (len(name.categories) + 1) + name.codes
    _, first, inverse = np.unique(pair, return_index=True, return_inverse=True)
    names = [operation_name(service[place], name[place]) for place in first.tolist()]
    codes, texts = pd.factorize(np.array(names, dtype=object)[inverse.reshape(-1)], sort=True)
    walk = walked.walk
    return pd.DataFrame(
        {
            "trace_id": spans["trace_id"].array[roots],
            "entry": pd.Categorical.from_codes(codes, categories=pd.Index(texts, dtype="str")),
            "duration_ns": (walk.finish_ns - walk.begin_ns)[roots],
            "start_ns": walk.begin_ns[roots],
            "span_id": spans["span_id"].to_numpy()[roots],
        }
    )


def exclusive_table(walked: Walked, entries: pd.DataFrame) -> pd.DataFrame:
    """Return one row per request and entity: ``request trace_id entry entity calls exclusive_ns``."""
    groups = _per_request(walked, walked.rows(ON_PATH))
    request = groups.request
    names = pd.Index(walked.entities.names, dtype="str")
    return pd.DataFrame(
        {
            "request": request,
            "trace_id": entries["trace_id"].array[request],
            "entry": entries["entry"].array[request],
            "entity": pd.Categorical.from_codes(groups.entity, categories=names),
            "calls": groups.calls,
            "exclusive_ns": groups.exclusive_ns,
        }
    )


def entity_table(walked: Walked, lane: int, among: Mask | None = None) -> pd.DataFrame:
    """Return one row per entity with spans in a lane, most time first.

    Parameters
    ----------
    walked : Walked
        The walked traces.
    lane : int
        `perflab.analysis.walk.ON_PATH` or ``APART``.
    among : bool[requests], optional
        The requests to look at; left out, all.

    Returns
    -------
    pandas.DataFrame
        Columns ``entity kind service name caller callee calls exclusive_ns mean_ms p50_ms p95_ms p99_ms
        covered_ns requests exemplar_trace_ids``, as in ``CriticalPath.table``.
    """
    rows = walked.rows(lane)
    if among is not None:
        rows = rows[among[walked.request[rows]]]
    code, exclusive = walked.entities.code[rows], walked.walk.exclusive_ns[rows]
    sorting = np.lexsort((exclusive, code))
    used, first = np.unique(code[sorting], return_index=True)
    table: pd.DataFrame = walked.entities.table.iloc[used].reset_index(drop=True)
    ascending = exclusive[sorting]
    calls = np.diff([*first.tolist(), len(rows)])
    total = np.add.reduceat(ascending, first) if len(first) else ascending
    covered = np.zeros(len(walked.entities.table), dtype=np.int64)
    np.add.at(covered, code, walked.walk.covered_ns[rows])

    table["calls"] = calls
    table["exclusive_ns"] = total
    table["mean_ms"] = total / np.maximum(calls, 1) / NS_PER_MS
    for column, quantile in _QUANTILES.items():
        ranks = [nearest_rank(size, quantile) for size in calls.tolist()]
        table[column] = ascending[first + np.array(ranks, dtype=np.int64) - 1] / NS_PER_MS
    table["covered_ns"] = covered[used]
    groups = _per_request(walked, rows)
    table["requests"] = np.bincount(groups.entity, minlength=len(covered))[used]
    table["exemplar_trace_ids"] = _exemplars(walked, groups, used)
    return table.sort_values(["exclusive_ns", "entity"], ascending=[False, True], ignore_index=True)


def stretches(walked: Walked, requests: Int64s) -> pd.DataFrame:
    """Return the paths of some requests: one row per stretch of time, in order of time.

    Columns ``entity kind service name span_id depth start_ns duration_ns``.
    """
    on_path = walked.rows(ON_PATH)
    rows = on_path[np.isin(walked.request[on_path], requests)]
    begin, finish = walked.walk.begin_ns, walked.walk.finish_ns
    chained: dict[int, list[tuple[int, int]]] = {}
    for row in rows.tolist():
        chained.setdefault(int(walked.forest.parent_row[row]), []).append((int(begin[row]), int(finish[row])))
    pieces: list[tuple[int, int, int, int]] = []
    for row in rows.tolist():
        cursor = int(begin[row])
        for child_begins, child_finishes in [*sorted(chained.get(row, [])), (int(finish[row]), 0)]:
            if child_begins > cursor:
                pieces.append((int(walked.request[row]), cursor, child_begins, row))
            cursor = child_finishes
    pieces.sort()
    of_row = np.array([row for *_, row in pieces], dtype=np.int64)
    table: pd.DataFrame = walked.entities.table.iloc[walked.entities.code[of_row]].reset_index(drop=True)
    table = table[["entity", "kind", "service", "name"]]
    return table.assign(
        span_id=walked.spans["span_id"].to_numpy()[of_row],
        depth=walked.forest.depth[of_row],
        start_ns=np.array([begins for _, begins, _, _ in pieces], dtype=np.int64),
        duration_ns=np.array([finishes - begins for _, begins, finishes, _ in pieces], dtype=np.int64),
    )


@dataclass(frozen=True, eq=False)
class _Groups:
    """Sums per request and entity, sorted by both."""

    request: Int64s
    entity: Int64s
    calls: Int64s
    exclusive_ns: Int64s


def _per_request(walked: Walked, rows: Int64s) -> _Groups:
    rows = rows[walked.request[rows] >= 0]
    key = walked.request[rows] * max(1, len(walked.entities.table)) + walked.entities.code[rows]
    sorting = np.argsort(key, kind="stable")
    used, first = np.unique(key[sorting], return_index=True)
    exclusive = walked.walk.exclusive_ns[rows][sorting]
    return _Groups(
        request=used // max(1, len(walked.entities.table)),
        entity=used % max(1, len(walked.entities.table)),
        calls=np.diff([*first.tolist(), len(rows)]),
        exclusive_ns=np.add.reduceat(exclusive, first) if len(first) else exclusive,
    )


def _exemplars(walked: Walked, groups: _Groups, used: Int64s) -> list[list[str]]:
    """Return per used entity the ids of the traces with most of its time."""
    trace_id: Any = walked.spans["trace_id"].array
    sorting = np.lexsort((groups.request, -groups.exclusive_ns, groups.entity))
    request = groups.request[sorting]
    first = np.searchsorted(groups.entity[sorting], used)
    last = np.searchsorted(groups.entity[sorting], used, side="right")
    found = []
    for begin, end in zip(first.tolist(), last.tolist(), strict=True):
        ids = [str(trace_id[walked.roots[place]]) for place in request[begin : min(end, begin + _EXEMPLARS)]]
        found.append(list(dict.fromkeys(ids)))
    return found
