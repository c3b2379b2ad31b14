"""The critical path: which spans a request really waited for, and for how long.

`critical_path` walks every trace of a span table back from its end and charges each nanosecond of it to
one entity: an operation or an edge between two services. What it took the liberty of doing (clipping,
shifting clocks, leaving out) is counted on the result.

The rule is described in DESIGN.md, section 4; ``compat="crisp"`` is that of Zhang et al., CRISP: Critical
Path Analysis of Large-Scale Microservice Architectures, USENIX ATC 2022.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

import numpy as np
import pandas as pd

from perflab.analysis.frames import fold_stacks
from perflab.analysis.markup import html_result, show_counts
from perflab.analysis.pathtable import Walked, entity_table, exclusive_table, request_table, stretches
from perflab.analysis.traversal import Traversal, refusals, traverse
from perflab.analysis.walk import APART, ON_PATH
from perflab.errors import AnalysisError
from perflab.trace.schema import check_spans

COMPATIBLE = ("crisp",)
_SHOWN = ("entity", "kind", "calls", "share_ratio", "mean_ms", "p50_ms", "p95_ms", "p99_ms")


@dataclass(frozen=True, eq=False)
class CriticalPath:
    """The critical paths of a span table; its tables are made when they are first asked for.

    Attributes
    ----------
    table : pandas.DataFrame
        One row per entity on any path, greatest share first: ``entity``, ``kind`` ("operation" or
        "edge"), ``service``, ``name``, ``caller``, ``callee`` (services of an edge, else ""), ``calls``
        (spans on a path), ``exclusive_ns`` (their sum), ``mean_ms p50_ms p95_ms p99_ms`` (exclusive time
        of a call), ``share_ratio`` (of the summed duration of all requests), ``covered_ns`` (exclusive
        time during which a child ran that is not on the path), ``requests`` (with the entity on their
        path), ``exemplar_trace_ids`` (up to three traces with most of it).
    entries : pandas.DataFrame
        One row per request in order of time: ``trace_id``, ``entry`` (the root's operation),
        ``duration_ns``, ``start_ns``, ``span_id`` (the root's).
    exclusive : pandas.DataFrame
        One row per request and entity: ``request`` (row of ``entries``), ``trace_id``, ``entry``,
        ``entity``, ``calls``, ``exclusive_ns``. Sums to ``duration_ns`` over each request.
    asynchronous : pandas.DataFrame
        As ``table`` without shares, of work no request waited for: its paths, walked the same way.
    counts : mapping of str to int
        ``traces requests spans`` analysed; ``roots orphans duplicates cycles`` of the whole table;
        ``unanswered`` roots and ``real_traces_left_out``; and what was done to the times: ``clipped
        abandoned asynchronous shifted centred negative_durations``.
    refused : tuple of str
        What was left out, as sentences.
    rule : str
        "strict" or "crisp".
    """

    counts: Mapping[str, int]
    refused: tuple[str, ...]
    rule: str
    walked: Walked = field(repr=False)

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per entity on any path, as told above."""
        table = entity_table(self.walked, ON_PATH)
        total_ns = int(self.walked.duration_ns.sum())
        share = table["exclusive_ns"] / total_ns if total_ns else 0.0
        table.insert(table.columns.get_loc("p99_ms") + 1, "share_ratio", share)
        if (np.diff(table["share_ratio"]) < 0).all():
            return table
        return table.sort_values(["share_ratio", "entity"], ascending=[False, True], ignore_index=True)

    @cached_property
    def entries(self) -> pd.DataFrame:
        """One row per request, as told above."""
        return request_table(self.walked)

    @cached_property
    def exclusive(self) -> pd.DataFrame:
        """One row per request and entity, as told above."""
        return exclusive_table(self.walked, self.entries)

    @cached_property
    def asynchronous(self) -> pd.DataFrame:
        """One row per entity nobody waited for, as told above."""
        return entity_table(self.walked, APART)

    @cached_property
    def stacks(self) -> pd.DataFrame:
        """Folded call paths: ``stack`` (``;``-joined, root first), ``exclusive_ns``, ``traces``."""
        walked = self.walked
        return fold_stacks(
            walked.rows(ON_PATH),
            walked.forest.parent_row,
            walked.entities.code,
            walked.walk.exclusive_ns,
            walked.request,
            walked.entities.names,
        )

    def path(self, trace_id: str) -> pd.DataFrame:
        """Return the critical path of one trace, in order of time.

        Parameters
        ----------
        trace_id : str
            32 hex digits.

        Returns
        -------
        pandas.DataFrame
            One row per stretch of time: ``entity kind service name span_id depth start_ns duration_ns``.
            ``start_ns`` is on the clock of the trace's root; the durations sum to the root's.

        Raises
        ------
        AnalysisError
            If no request of this trace was analysed.
        """
        chosen = np.flatnonzero((self.entries["trace_id"] == trace_id).to_numpy())
        if not chosen.size:
            known = ", ".join(self.entries["trace_id"].head(3).astype("str")) or "none"
            raise AnalysisError(
                f"trace {trace_id!r} has no critical path here: it is not in the table, has no root, or was "
                f"left out ({'; '.join(self.refused) or 'nothing was'}); there are {len(self.entries)} "
                f"requests, such as {known}"
            )
        return stretches(self.walked, chosen)

    def __repr__(self) -> str:
        worst = f", most in {self.table['entity'].iloc[0]!r}" if len(self.table) else ""
        return (
            f"CriticalPath({len(self.entries)} requests, {len(self.table)} entities{worst}; {self.rule} rule)"
        )

    def _repr_html_(self) -> str:
        title = f"Critical path of {len(self.entries):,} requests ({self.rule} rule)"
        return html_result(title, self.table, _SHOWN, [*self.refused, show_counts(self.counts)])


def critical_path(spans: pd.DataFrame, compat: str | None = None) -> CriticalPath:
    """Find what each request waited for.

    Parameters
    ----------
    spans : pandas.DataFrame
        A span table. Where it holds marked and real traces, only the marked ones are analysed.
    compat : {None, 'crisp'}
        ``None`` for the strict rule. ``"crisp"`` for the published CRISP rule: no clock is shifted,
        nothing is asynchronous, overlapping siblings are never sequential, and time between caller and
        callee belongs to the caller.

    Returns
    -------
    CriticalPath
        Exclusive times of each request sum to its duration, exactly.

    Raises
    ------
    AnalysisError
        If there is no such ``compat``.
    SchemaError
        If ``spans`` is no span table.

    Examples
    --------
    >>> from perflab.testing import S, spans
    >>> server = S("stock", "POST /reserve", 15, 55, kind="server")
    >>> call = S("order", "POST stock", 10, 60, kind="client", children=[server])
    >>> found = critical_path(spans([S("order", "POST /orders", 0, 100, kind="server", children=[call])]))
    >>> found.table[["entity", "mean_ms"]].values.tolist()
    [['order: POST /orders', 50.0], ['stock: POST /reserve', 40.0], ['order -> stock', 10.0]]
    """
    if compat is not None and compat not in COMPATIBLE:
        raise AnalysisError(f"there is no rule compat={compat!r}; there are None (strict) and {COMPATIBLE}")
    check_spans(spans)
    return tabulate(traverse(spans, crisp=compat == "crisp"), compat or "strict")


def tabulate(traversal: Traversal, rule: str) -> CriticalPath:
    """Return the critical paths of walked traces; ``rule`` is what they were walked by."""
    counts = traversal.counts()
    return CriticalPath(MappingProxyType(counts), refusals(counts), rule, traversal.walked)
