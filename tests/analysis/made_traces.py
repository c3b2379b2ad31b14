"""Traces that several tests look at, and how they read times from them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from perflab.analysis.criticalpath import critical_path
from perflab.testing import S, random_forest, spans, trace_id
from perflab.trace.schema import concat_spans


def nested() -> pd.DataFrame:
    """Return one request: 50 ms own time, 10 of a gap, 10 and 30 in the callee and its statement."""
    query = S("stock", "SELECT stock", 20, 50, kind="client")
    server = S("stock", "POST /reserve", 15, 55, kind="server", children=[query])
    call = S("order", "POST stock", 10, 60, kind="client", children=[server])
    return spans([S("order", "POST /orders", 0, 100, kind="server", children=[call])])


def times(table: pd.DataFrame, trace: int = 1) -> dict[str, float]:
    """Return exclusive ms per entity of one trace."""
    found = critical_path(table).exclusive
    chosen = found[found["trace_id"] == trace_id(trace)]
    return dict(zip(chosen["entity"], chosen["exclusive_ns"] / 1e6, strict=True))


def cruel(seed: int) -> pd.DataFrame:
    """Return a random table with broken times, lost parents, duplicates and clocks that disagree."""
    table = random_forest(seed, traces=3)
    rng = np.random.default_rng(seed)
    size = len(table)
    jitter = rng.choice([0, 0, 0, 1000, 40_000, 900_000, 30_000_000, -5_000_000], size)
    start = table["start_ns"] + jitter
    # coarse times make ties
    start = start if seed % 2 else start // 1_000_000 * 1_000_000
    duration = table["duration_ns"] * rng.choice([0, 1, 1, 1, 2], size) if seed % 3 else table["duration_ns"]
    parent = table["parent_span_id"].where(rng.random(size) > 0.03, np.uint64(12345)).astype("uint64")
    parent = parent.where(table["parent_span_id"] != 0, table["parent_span_id"])
    hosts = pd.Categorical(rng.choice(["h1", "h2", "h3"], size))
    changed = table.assign(start_ns=start, duration_ns=duration, parent_span_id=parent, host=hosts)
    return concat_spans([changed, changed.head(size // 4)])
