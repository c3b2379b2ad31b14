"""Reports: a notebook template in, one HTML file that opens offline out.

``template`` finds and checks, ``render`` executes, ``export`` writes the page; `cards` is what the cells of
a template say with. Names are loaded when first used, so that a notebook's kernel pays only for its cards.
"""

from __future__ import annotations

import importlib
from typing import Any

_WHERE = {
    "Html": "perflab.report.cards",
    "banner": "perflab.report.cards",
    "counts": "perflab.report.cards",
    "finding": "perflab.report.cards",
    "note": "perflab.report.cards",
    "summary": "perflab.report.cards",
    "table": "perflab.report.cards",
    "tried": "perflab.report.cards",
    "checks": "perflab.report.proof",
    "errors": "perflab.report.proof",
    "events": "perflab.report.proof",
    "isolation": "perflab.report.proof",
    "real_users": "perflab.report.proof",
    "parameters": "perflab.report.proof",
    "read_params": "perflab.report.template",
}

__all__ = [
    "Html",
    "banner",
    "checks",
    "counts",
    "errors",
    "events",
    "finding",
    "isolation",
    "note",
    "parameters",
    "read_params",
    "real_users",
    "summary",
    "table",
    "tried",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"perflab.report has no {name!r}; there are {', '.join(__all__)}")


def __dir__() -> list[str]:
    return list(__all__)
