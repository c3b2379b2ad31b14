"""The tables made of walked traces: per request, per entity, per stretch of time.

All sums are of int64 ns, so that they agree to the nanosecond whatever they are grouped by.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from perflab.analysis.entity import COLUMNS, Entities, operation_name
from perflab.analysis.quantile import nearest_rank
from perflab.analysis.summing import most_per_group, sort_by_group, sum_by, sum_per_request
from perflab.analysis.walk import ON_PATH, Tree, Walk
from perflab.trace.tree import Forest
from perflab.units import NS_PER_MS

Int64s = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

EXEMPLARS = 3
"""Traces named per entity."""

QUANTILES = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99}
"""Percentiles of an entity's exclusive times."""


@dataclass(frozen=True, eq=False)
class Sums:
    """Exclusive times per request and entity, sorted by both.

    Attributes
    ----------
    request, entity, calls, exclusive_ns : int64[m]
    """

    request: Int64s
    entity: Int64s
    calls: Int64s
    exclusive_ns: Int64s

    def among(self, chosen: Mask) -> Sums:
        """Return those of some requests."""
        kept = chosen[self.request]
        return Sums(self.request[kept], self.entity[kept], self.calls[kept], self.exclusive_ns[kept])


@dataclass(frozen=True, eq=False)
class Walked:
    """A span table on its critical paths: the arrays that the tables are made of.

    Attributes
    ----------
    spans : pandas.DataFrame
        The table as it was given: of what is done to that later, nothing is seen here.
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
    _sums: dict[int, Sums] = field(default_factory=dict, init=False, repr=False)
    _rows: dict[int, Int64s] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(
        cls, spans: pd.DataFrame, forest: Forest, entities: Entities, tree: Tree, walk: Walk, is_root: Mask
    ) -> Walked:
        """Put the arrays together; requests are numbered in order of time, then of trace id and span id."""
        roots = np.flatnonzero(is_root)
        roots = roots[np.argsort(tree.start_ns[roots])]
        started_ns = tree.start_ns[roots]
        if (started_ns[1:] == started_ns[:-1]).any():
            keys = (tree.kind_rank, tree.span_id, forest.trace_code, tree.start_ns)
            roots = roots[np.lexsort([key[roots] for key in keys])]
        number = np.full(len(spans) + 1, -1, dtype=np.int64)  # the last one for rows without a head
        number[roots] = np.arange(len(roots))
        return cls(spans.copy(deep=False), forest, entities, tree, walk, roots, number[forest.head_row])

    @property
    def duration_ns(self) -> Int64s:
        """How long each request took, int64[requests]."""
        took: Int64s = self.walk.finish_ns[self.roots] - self.walk.begin_ns[self.roots]
        return took

    def sums(self, lane: int) -> Sums:
        """Return exclusive times per request and entity of one lane."""
        if lane not in self._sums:
            in_lane = np.where(self.walk.lane == lane, self.request, -1)
            code, exclusive = self.entities.code, self.walk.exclusive_ns
            self._sums[lane] = Sums(
                *sum_per_request(in_lane, code, exclusive, len(self.roots), self.entities.size)
            )
        return self._sums[lane]

    def rows(self, lane: int) -> Int64s:
        """Return the rows of one lane, parents before children."""
        if lane not in self._rows:
            order = self.forest.order
            self._rows[lane] = order[self.walk.lane[order] == lane]
        return self._rows[lane]


def request_table(walked: Walked) -> pd.DataFrame:
    """Return one row per request: ``trace_id entry duration_ns start_ns span_id``."""
    from perflab.compiled import number

    spans, roots = walked.spans, walked.roots
    service, name = spans["service"].array[roots], spans["name"].array[roots]
    pair = (service.codes.astype(np.int64) + 1) * (len(name.categories) + 1) + name.codes + 1
    first = np.empty(len(number(pair)), dtype=np.int64)  # a request of each: `pair` is now their number
    first[pair] = np.arange(len(pair))
    names = [operation_name(service[place], name[place]) for place in first.tolist()]
    texts = sorted(set(names))
    codes = np.array([texts.index(text) for text in names], dtype=np.int64)[pair]
    return pd.DataFrame(
        {
            "trace_id": spans["trace_id"].array[roots],
            "entry": pd.Categorical.from_codes(codes, categories=pd.Index(texts, dtype="str")),
            "duration_ns": walked.duration_ns,
            "start_ns": walked.walk.begin_ns[roots],
            "span_id": spans["span_id"].to_numpy()[roots],
        }
    )


def exclusive_table(walked: Walked, entries: pd.DataFrame) -> pd.DataFrame:
    """Return one row per request and entity: ``request trace_id entry entity calls exclusive_ns``."""
    groups = walked.sums(ON_PATH)
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
        },
        copy=False,
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
    entities = walked.entities
    code, exclusive = entities.code[rows], walked.walk.exclusive_ns[rows]
    ascending, offsets = sort_by_group(exclusive, code, entities.size)
    total, sizes = sum_by(code, exclusive, entities.size), np.diff(offsets)
    used = np.flatnonzero(sizes)
    used = used[np.argsort(-total[used], kind="stable")]  # level ones stay in the order of their names
    first, calls = offsets[used], sizes[used]
    groups = walked.sums(lane) if among is None else walked.sums(lane).among(among)
    described = zip(*(entities.rows[at] for at in used.tolist()), strict=True) if len(used) else [[]] * 6
    columns: dict[str, Any] = {
        name: pd.array(list(texts), dtype="str") for name, texts in zip(COLUMNS, described, strict=True)
    }
    columns["calls"] = calls
    columns["exclusive_ns"] = total[used]
    columns["mean_ms"] = total[used] / np.maximum(calls, 1) / NS_PER_MS
    for column, quantile in QUANTILES.items():
        ranks = [nearest_rank(size, quantile) for size in calls.tolist()]
        columns[column] = ascending[first + np.array(ranks, dtype=np.int64) - 1] / NS_PER_MS
    columns["covered_ns"] = sum_by(code, walked.walk.covered_ns[rows], entities.size)[used]
    columns["requests"] = np.bincount(groups.entity, minlength=entities.size)[used]
    columns["exemplar_trace_ids"] = _exemplars(walked, groups, used)
    return pd.DataFrame(columns)


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


def _exemplars(walked: Walked, groups: Sums, used: Int64s) -> list[list[str]]:
    """Return per used entity the ids of the traces with most of its time."""
    trace_id: Any = walked.spans["trace_id"].array
    entities = walked.entities.size
    most = most_per_group(groups.entity, groups.exclusive_ns, groups.request, entities, EXEMPLARS)[used]
    ids = trace_id.categories[trace_id.codes[walked.roots[groups.request[most[most >= 0]]]]].tolist()
    ends = np.cumsum((most >= 0).sum(axis=1)).tolist()
    return [list(dict.fromkeys(ids[begin:end])) for begin, end in pairwise([0, *ends])]
