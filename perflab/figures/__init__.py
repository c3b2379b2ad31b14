"""Figures: results in, one plotly figure out; one kind of figure per file.

The names are functions. Some are called like the file they are in (``flame``, ``waterfall``), so they are
bound here, once, instead of being looked up lazily: a module must never take a function's place. The
room itself is loaded when first used.
"""

from __future__ import annotations

from perflab.figures.callgraph import call_graph
from perflab.figures.criticalpath import critical_path
from perflab.figures.flame import flame
from perflab.figures.latency import latency_over_time, percentiles, rates
from perflab.figures.waterfall import waterfall

__all__ = [
    "call_graph",
    "critical_path",
    "flame",
    "latency_over_time",
    "percentiles",
    "rates",
    "waterfall",
]
