"""Operations and edges that only one of two sides has, on the critical path or off it.

What is rare may be missing by chance: an entity that 1 request in 500 meets is easily absent from 300. So a
row says how likely it would be for all requests with the entity to fall on one side if both sides were
alike, times the number of entities looked at (Bonferroni). Requests are taken to be independent here.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from perflab.analysis.criticalpath import CriticalPath

APPEARED, VANISHED, CANNOT_SAY = "appeared", "vanished", "cannot say"
SIGNIFICANT = 0.05

_COLUMNS = {
    "entity": "str",
    "kind": "str",
    "calls_before": "int64",
    "calls_after": "int64",
    "requests_before": "int64",
    "requests_after": "int64",
    "p_value": "float64",
    "verdict": "str",
    "evidence": "str",
}


def changed_structure(before: CriticalPath, after: CriticalPath) -> pd.DataFrame:
    """Return the entities that only one side has.

    Parameters
    ----------
    before, after : CriticalPath
        Both sides.

    Returns
    -------
    pandas.DataFrame
        The most frequent first: ``entity``, ``kind`` ("operation" or "edge"), ``calls_before calls_after``
        (spans, whether a request waited for them or not), ``requests_before requests_after`` (with the
        entity), ``p_value`` (that chance alone would do it, adjusted for the entities there are),
        ``verdict`` ("appeared", "vanished", or "cannot say" where chance might do it) and ``evidence``.
    """
    sides = (_calls(before), _calls(after))
    sizes = (len(before.entries), len(after.entries))
    names = sorted(set(sides[0].index) | set(sides[1].index))
    old, new = (side.reindex(names) for side in sides)
    total = max(1, sum(sizes))
    rows = []
    for name, was, comes in zip(names, old.to_dict("records"), new.to_dict("records"), strict=True):
        is_new, is_gone = not was["calls"] > 0, not comes["calls"] > 0
        if is_new == is_gone:
            continue
        there, size = (comes, sizes[1]) if is_new else (was, sizes[0])
        requests = int(there["requests"])
        chance = min(1.0, len(names) * (size / total) ** requests)
        change = APPEARED if is_new else VANISHED
        rows.append(
            {
                "entity": name,
                "kind": there["kind"],
                "calls_before": 0 if is_new else int(was["calls"]),
                "calls_after": int(comes["calls"]) if is_new else 0,
                "requests_before": 0 if is_new else requests,
                "requests_after": requests if is_new else 0,
                "p_value": chance,
                "verdict": change if chance <= SIGNIFICANT else CANNOT_SAY,
                "evidence": _sentence(change, requests, size, sizes[0] if is_new else sizes[1], chance),
            }
        )
    rows.sort(key=lambda row: (-row["requests_before"] - row["requests_after"], row["entity"]))
    return pd.DataFrame(rows, columns=list(_COLUMNS)).astype(_COLUMNS)


def _calls(path: CriticalPath) -> pd.DataFrame:
    """Return ``calls requests kind`` per entity."""
    walked = path.walked
    rows = np.flatnonzero(walked.request >= 0)
    code = walked.entities.code[rows]
    entities = walked.entities.size
    met = np.unique(code * (len(walked.roots) + 1) + walked.request[rows]) // (len(walked.roots) + 1)
    calls = pd.DataFrame(
        {
            "calls": np.bincount(code, minlength=entities),
            "requests": np.bincount(met, minlength=entities),
            "kind": walked.entities.table["kind"],
        }
    )
    calls.index = pd.Index(walked.entities.table["entity"])
    return calls[calls["calls"] > 0]


def _sentence(change: str, requests: int, size: int, other: int, chance: float) -> str:
    there, absent = ("after", "before") if change == APPEARED else ("before", "after")
    text = f"{change}: in {requests:,} of {size:,} requests {there}, in none of {other:,} {absent}"
    return text if chance <= SIGNIFICANT else f"{text}, which may be chance"
