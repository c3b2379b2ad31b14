"""perflab: full-link stress testing in production, and the analysis that names the bottleneck.

The names below are all most notebooks need; each is loaded when first used. Rooms are reached by
name: ``pf.figures``, ``pf.report``.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_WHERE = {
    "Arrivals": "perflab.load.arrivals",
    "Experiment": "perflab.load.experiment",
    "Guard": "perflab.load.guard",
    "Run": "perflab.run",
    "Scenario": "perflab.traffic.scenario",
    "bottlenecks": "perflab.analysis.bottleneck",
    "call_graph": "perflab.analysis.callgraph",
    "compare": "perflab.analysis.compare",
    "critical_path": "perflab.analysis.criticalpath",
    "fit_capacity": "perflab.analysis.capacity",
    "fit_experiment": "perflab.load.experiment",
    "latency": "perflab.analysis.latency",
    "launch": "perflab.load.launch",
    "read_spans": "perflab.trace.store",
    "undelayed_spans": "perflab.load.experiment",
    "what_if": "perflab.analysis.whatif",
}
_ROOMS = ("figures", "report")

__all__ = [*_WHERE, *_ROOMS]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    if name in _ROOMS:
        return importlib.import_module(f"perflab.{name}")
    raise AttributeError(f"module 'perflab' has no attribute {name!r}; there are {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
