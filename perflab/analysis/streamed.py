"""The bottleneck of a span table larger than memory, part by part.

Everything that is a sum is over all traces: calls, exclusive times, shares, gains, exemplars, counts;
percentiles are of histograms over all of them. What needs many spans side by side is told from a sample of
whole traces from all over the table: how far clocks are apart, which known trouble a place looks like, and
whether a gap grows with the calls in flight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import pandas as pd

from perflab.analysis.bottleneck import (
    MIN_REQUESTS,
    Bottlenecks,
    conclude,
    rank_entries,
    too_few,
)
from perflab.analysis.criticalpath import tabulate
from perflab.analysis.difference import empty_differences
from perflab.analysis.partial import PathSums
from perflab.analysis.traversal import Surroundings, refusals, traverse
from perflab.trace.scan import ANALYSED, SpanScan, scan_spans
from perflab.trace.skew import clock_offsets

SAMPLED_SPANS = 400_000
"""About how many spans are looked at side by side."""

BATCH_SPANS = 384 * 1024
"""Spans walked at a time, at least: what memory is needed for."""

Watch = Callable[[int, int], None]


class TraceIds:
    """The ids of very many traces, kept as 64 bits of each.

    Two of 10 million ids share them with a probability of 3e-6.
    """

    def __init__(self, parts: Iterable[pd.Index]) -> None:
        found = [np.array([_folded(text) for text in part], dtype=np.uint64) for part in parts]
        self._folded: npt.NDArray[np.uint64] = (
            np.unique(np.concatenate(found)) if found else np.zeros(0, np.uint64)
        )

    def __contains__(self, trace_id: object) -> bool:
        wanted = np.uint64(_folded(str(trace_id)))
        at = int(np.searchsorted(self._folded, wanted))
        return at < len(self._folded) and bool(self._folded[at] == wanted)


def stream_bottlenecks(path: str | Path, *, watch: Watch | None = None) -> Bottlenecks:
    """Rank where requests spend their critical time, without holding all spans at once.

    Parameters
    ----------
    path : str or Path
        As for `perflab.trace.store.read_spans`.
    watch : callable, optional
        Called now and then with how many spans are done, and of how many.

    Returns
    -------
    Bottlenecks
        Rows and columns as of `perflab.analysis.bottleneck.bottlenecks`. All sums are the same. Percentiles
        of exclusive times are known to 0.2 %. Intervals are made of 1,024 equal slices of time. ``path`` is
        of the sample; ``refused`` says so.

    Raises
    ------
    SpanFormatError
        If nothing is there, or a file cannot be read.
    SchemaError
        If a file is no span table.
    """
    scan = scan_spans(path)
    sample = scan.sample(SAMPLED_SPANS)
    surroundings = Surroundings(scan.has_marked, clock_offsets(sample), _trace_ids(scan))
    sums = PathSums(scan.begin_ns, scan.end_ns)
    done = 0
    for spans in scan.batches(_columns(scan), BATCH_SPANS):
        traversal = traverse(spans, surroundings=surroundings)
        sums.add(traversal.walked, traversal.counts())
        done += len(spans)
        if watch:
            watch(done, scan.spans)
    sampled = tabulate(traverse(sample, surroundings=surroundings), "strict")
    counts = MappingProxyType(sums.counts or dict(sampled.counts))
    refused = refusals(counts)
    if sums.requests < MIN_REQUESTS:
        return too_few(sums.requests, sampled, counts, refused, empty_differences())
    if len(sample) < scan.spans:
        sizes = f"{len(sample):,} of {scan.spans:,} spans"
        refused += (
            f"patterns and clock offsets are told from a sample of {sizes}; sums are over all of them",
        )
    rankings, not_ranked = rank_entries(sums.weights(), sums.ranking)
    refused = (*refused, *not_ranked)
    return conclude(sums.ranking(), rankings, sampled, counts, refused, empty_differences())


def _columns(scan: SpanScan) -> tuple[str, ...]:
    """Return the columns that make a difference."""
    chosen = [*ANALYSED]
    chosen += ["shadow"] if scan.has_marked else []
    chosen += ["links"] if scan.has_links else []
    chosen += ["outcome"] if scan.has_outcomes else []
    return tuple(chosen)


def _trace_ids(scan: SpanScan) -> TraceIds:
    """Return the ids of all traces, if a link may name one."""
    if not scan.has_links:
        return TraceIds([])
    return TraceIds(spans["trace_id"].array.categories for spans in scan.batches(["trace_id"], BATCH_SPANS))


def _folded(trace_id: str) -> int:
    """Return 64 bits that stand for a trace id."""
    try:
        return int(trace_id[:16], 16) ^ int(trace_id[16:] or "0", 16) & (1 << 64) - 1
    except ValueError:
        return hash(trace_id) & (1 << 64) - 1
