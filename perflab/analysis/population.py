"""Which traces a statistic is made of: shadow or real, never both; answered requests, never the rest.

Marked test traffic and real users' traffic differ in mix and load, so they are never pooled. A request
that was never answered has no end to walk back from; it is counted here and weighed in the latency.
"""

from __future__ import annotations

import json
from collections.abc import Container
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from perflab.trace.schema import GENERATOR_SERVICE
from perflab.trace.tree import Forest

Int64s = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

ANSWERED = ("answered", "check_failed", "")
"""Outcomes of a request that got an answer, right or wrong; ``""``: not a generated request."""

MISSED = "missed"
"""Outcome of a request that was due but never sent."""


@dataclass(frozen=True, eq=False)
class Population:
    """The traces taken, and what was left out.

    Attributes
    ----------
    is_taken : bool[n]
        The row's tree belongs to the population: its head is a root, was answered, is of the right traffic.
    is_root : bool[n]
        The row is the root of such a tree.
    unanswered : int
        Roots left out because nobody answered them.
    real_traces_left_out : int
        Traces left out because the table holds marked ones, too.
    """

    is_taken: Mask
    is_root: Mask
    unanswered: int
    real_traces_left_out: int


def take_population(spans: pd.DataFrame, forest: Forest, has_marked: bool | None = None) -> Population:
    """Choose the traces to analyse.

    Parameters
    ----------
    spans : pandas.DataFrame
        A span table.
    forest : Forest
        ``link(spans)``.
    has_marked : bool, optional
        Whether there are marked traces in the table that ``spans`` is a part of; left out, it is the whole.

    Returns
    -------
    Population
        The marked traces where there are any (a trace is marked if one of its spans is), else all.
        Of these, the trees with a root that was answered.
    """
    marked = marked_traces(spans, forest)
    marked_only = bool(marked.any()) if has_marked is None else has_marked
    roots = np.flatnonzero((forest.depth == 0) & ~forest.is_orphan)
    if marked_only:
        roots = roots[marked[forest.trace_code[roots]]]
    answered = _tell_answers(spans["outcome"].array[roots])
    is_root = np.zeros(len(spans) + 1, dtype=bool)  # the last one for rows without a head
    is_root[roots[answered]] = True
    return Population(
        is_taken=is_root[forest.head_row],
        is_root=is_root[:-1],
        unanswered=int((~answered).sum()),
        real_traces_left_out=int((~marked).sum()) if marked_only else 0,
    )


def marked_traces(spans: pd.DataFrame, forest: Forest) -> Mask:
    """Return per trace (in the forest's numbering) whether one of its spans is marked."""
    marked = np.zeros(forest.traces, dtype=bool)
    marked[forest.trace_code[spans["shadow"].to_numpy()]] = True
    return marked


def match_traffic(before: pd.DataFrame, after: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Choose the same traffic of two span tables that are to be compared: marked, or else real.

    Parameters
    ----------
    before, after : pandas.DataFrame
        Span tables.

    Returns
    -------
    before, after : pandas.DataFrame
        As given where both hold marked traces (which are then taken, see `take_population`) or neither
        does. Where only one does, its real traces; if it has none, the table as given: then marked and real
        traffic are what is to be compared.
    notes : list of str
        What was left out or is unlike, as sentences.
    """
    sides = {"before": before, "after": after}
    marked = {side: _in_marked_trace(spans) for side, spans in sides.items()}
    one = [side for side in sides if marked[side].any()]
    if len(one) != 1:
        return before, after, []
    (side,) = one
    other = "after" if side == "before" else "before"
    if marked[side].all():
        note = f"{side} is marked traffic, {other} is real: differences of mix and load are compared, too"
        return before, after, [note]
    ids: Any = sides[side]["trace_id"].array
    left_out = len(np.unique(ids.codes[marked[side]]))
    note = f"{side}: {left_out:,} marked traces left out: {other} has real traffic only"
    sides[side] = sides[side][~marked[side]]
    return sides["before"], sides["after"], [note]


def _in_marked_trace(spans: pd.DataFrame) -> Mask:
    ids: Any = spans["trace_id"].array
    is_marked = np.zeros(len(ids.categories) + 1, dtype=bool)
    is_marked[ids.codes[spans["shadow"].to_numpy()]] = True
    marked: Mask = is_marked[ids.codes]
    return marked


def find_linked(spans: pd.DataFrame, forest: Forest, traces: Container[str] | None = None) -> Mask:
    """Return per row whether a link ties it to what it follows, so that nobody waits for it.

    A child that links to its own parent follows from it. A root that links into another trace of the
    table is that trace's asynchronous work; one that links elsewhere is an entry like any other.

    Parameters
    ----------
    spans : pandas.DataFrame
        A span table.
    forest : Forest
        ``link(spans)``.
    traces : container of str, optional
        The ids of the table that ``spans`` is a part of; left out, it is the whole.
    """
    import pyarrow
    import pyarrow.compute

    linked = np.zeros(len(spans), dtype=bool)
    texts = spans["links"]
    if not pyarrow.compute.max(pyarrow.compute.binary_length(pyarrow.array(texts))).as_py():
        return linked
    rows = np.flatnonzero((texts.notna() & (texts != "")).to_numpy(dtype=bool))
    if not rows.size:
        return linked
    trace_id: Any = spans["trace_id"].array
    span_id = spans["span_id"].to_numpy()
    if traces is None:
        traces = {str(text) for text in trace_id.categories[np.unique(trace_id.codes)]}
    for row, text in zip(rows.tolist(), texts.iloc[rows].tolist(), strict=True):
        parent = int(forest.parent_row[row])
        for linked_trace, linked_span in _read_links(text):
            if parent >= 0:
                linked[row] |= linked_span == int(span_id[parent])
            elif not forest.is_orphan[row]:
                linked[row] |= linked_trace != str(trace_id[row]) and linked_trace in traces
    return linked


def find_causes(spans: pd.DataFrame) -> dict[str, str]:
    """Return, of traces whose root links into another trace of a table, that trace; of chains the first."""
    rows = ((spans["links"].fillna("") != "") & (spans["parent_span_id"] == 0)).to_numpy(dtype=bool)
    here = set(spans["trace_id"].astype(str).unique()) if rows.any() else set()
    after: dict[str, str] = {}
    for trace, text in zip(spans["trace_id"][rows].astype(str), spans["links"][rows], strict=True):
        for linked, _ in _read_links(text):
            if linked != trace and linked in here:
                after.setdefault(trace, linked)
    causes = {}
    for trace in after:
        first, passed = trace, {trace}
        while first in after and after[first] not in passed:
            first = after[first]
            passed.add(first)
        causes[trace] = first
    return causes


def is_answered(spans: pd.DataFrame) -> Mask:
    """Return per row whether its outcome is an answer, or it has none to have."""
    return _tell_answers(spans["outcome"].array)


def _tell_answers(outcome: pd.Categorical) -> Mask:
    wanted = np.array([*(text in ANSWERED for text in outcome.categories), True])
    answered: Mask = wanted[outcome.codes]
    return answered


def is_generated(spans: pd.DataFrame) -> Mask:
    """Return per row whether it is a request of the load engine."""
    by_engine = np.asarray(spans["service"].array == GENERATOR_SERVICE)
    generated: Mask = by_engine & np.asarray(spans["kind"].array == "client")
    return generated


def _read_links(text: str) -> list[tuple[str, int]]:
    """Return (trace id, span id) of each link; one that cannot be read ties nothing."""
    try:
        links = json.loads(text)
    except ValueError:
        return []
    found = []
    for link in links if isinstance(links, list) else []:
        if not isinstance(link, dict):
            continue
        trace = link.get("trace_id", link.get("traceId", ""))
        span = link.get("span_id", link.get("spanId", 0))
        try:
            found.append((str(trace).lower(), span if isinstance(span, int) else int(str(span), 16)))
        except ValueError:
            continue
    return found
