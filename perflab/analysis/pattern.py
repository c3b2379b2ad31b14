"""What kind of place an entity is, which known trouble it looks like, and the advice that fits.

Spans say what was called and for how long, not why. So a pattern is named only where the spans show it
(many calls of one kind in a row, a gap that grows with what is in flight); the rest is advice on where to
look next.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from perflab.analysis.entity import EDGE
from perflab.analysis.pathtable import Walked
from perflab.analysis.repeats import MANY_CALLS, calls_per_parent
from perflab.analysis.waiting import Waiting
from perflab.analysis.walk import ON_PATH

Int64s = npt.NDArray[np.int64]

SEQUENTIAL_CALLS = 3
"""Different calls in a row under one parent that are worth a thought of doing them side by side."""

WAITING = "waiting to be accepted"
"""Pattern of an edge whose gap grows with the calls in flight to its callee."""

SLOW_QUERY_MS = 5.0
SLOW_CACHE_MS = 2.0

_SQL_VERB = re.compile(r"(SELECT|INSERT|UPDATE|DELETE|MERGE|WITH|COMMIT|BEGIN|ROLLBACK|CALL|COPY)\b")
_LOCKING = re.compile(r"\bFOR (NO KEY )?(UPDATE|SHARE)\b|\bLOCK TABLE\b|\bpg_advisory", re.IGNORECASE)
_LOCK_NAME = re.compile(r"\block(s|ed|ing)?\b", re.IGNORECASE)
_POOL_NAME = re.compile(r"\b(pool|checkout|acquire|get_?conn(ection)?)\b", re.IGNORECASE)
_CACHES = frozenset({"redis", "valkey", "memcached"})


@dataclass(frozen=True)
class Finding:
    """What is said of one entity besides its numbers."""

    pattern: str
    evidence: str
    advice: str


class Diagnosis:
    """Looks at the spans of entities on critical paths.

    Parameters
    ----------
    walked : Walked
        The walked span table.
    waiting : Waiting
        What is known of its edges.
    """

    def __init__(self, walked: Walked, waiting: Waiting) -> None:
        self.walked = walked
        self.waiting = waiting
        self.rows = walked.rows(ON_PATH)
        self.code = walked.entities.code[self.rows]
        by_code = np.argsort(self.code, kind="stable")
        sizes = np.bincount(self.code, minlength=walked.entities.size)
        self.rows_of = np.split(self.rows[by_code], np.cumsum(sizes)[:-1])
        self.place = {name: code for code, name in enumerate(walked.entities.names)}
        self.per_parent = calls_per_parent(walked)
        self.beside = self._calls_beside()

    def find(self, row: Mapping[str, Any]) -> Finding:
        """Say what a row of a ranking looks like.

        Parameters
        ----------
        row : mapping
            ``entity kind service name callee mean_ms`` of the ranking's row.
        """
        code = self.place.get(str(row["entity"]), -1)
        if code < 0 or not len(self.rows_of[code]):
            return Finding(
                "", "in none of the traces that were looked at closely", "Look at its exemplar traces."
            )
        in_a_row = float(self.per_parent[code])
        if row["kind"] == EDGE:
            return self._edge(row, code, in_a_row)
        rows = self.rows_of[code]
        attributes = _attributes(self.walked.spans, rows[:3])
        kind = str(self.walked.spans["kind"].array[rows[0]])
        system = _store_system(self.walked.spans, rows)
        if kind == "client" and system in _CACHES:
            return _cache(row, in_a_row)
        if kind == "client" and (system or _SQL_VERB.match(str(row["name"]))):
            return _query(row, in_a_row, str(attributes.get("db.query.text", "")))
        if kind == "client":
            return self._peer(code, in_a_row)
        if kind == "producer":
            return Finding(
                "", "", "Publishing blocks the request: check the broker's acknowledgement and batching."
            )
        return _own(row)

    def _edge(self, row: Mapping[str, Any], code: int, in_a_row: float) -> Finding:
        callee = row["callee"]
        if in_a_row >= MANY_CALLS:
            return Finding(
                "chatty edge",
                f"about {in_a_row:.0f} calls in a row under one parent",
                f"Ask {callee} once for all of them: a batch call, or fetch them side by side.",
            )
        growth = self.waiting.growth(code)
        if growth.grows:
            return Finding(
                WAITING,
                f"the gap grows with the calls in flight to {callee}: {growth.quiet_ms:.3g} ms when few, "
                f"{growth.busy_ms:.3g} ms when many (rank correlation {growth.correlation:.2f})",
                f"Check {callee}'s worker threads, accept queue and the caller's connection pool: "
                f"more workers, or shorten what holds them.",
            )
        if growth.is_known:
            return Finding(
                "network or connect",
                f"the gap does not grow with the calls in flight to {callee} ({growth.quiet_ms:.3g} ms when "
                f"few, {growth.busy_ms:.3g} ms when many)",
                f"Look between the two: new connections per call (keep-alive, TLS, DNS), proxies, distance; "
                f"then {callee}'s accept queue.",
            )
        return Finding(
            "network or waiting to be accepted",
            "too few calls to tell a slow network from a callee that accepts late",
            f"Check {callee}'s worker threads and accept queue, then connections and network in between.",
        )

    def _peer(self, code: int, in_a_row: float) -> Finding:
        if in_a_row >= MANY_CALLS:
            return Finding(
                "chatty edge",
                f"about {in_a_row:.0f} calls in a row under one parent",
                "Ask the peer once for all of them: a batch call, or side by side.",
            )
        beside = float(self.beside[code])
        sequential = beside >= SEQUENTIAL_CALLS
        return Finding(
            "sequential calls" if sequential else "",
            f"one of {beside:.0f} different calls made one after another" if sequential else "",
            "The callee sends no spans: ask its owner, set a timeout, and answer without it where it may be "
            "late (cache, queue, circuit breaker)."
            + (" Calls that do not need each other's answer can run side by side." if sequential else ""),
        )

    def _calls_beside(self) -> npt.NDArray[np.float64]:
        """Return per entity how many different services its parent calls in a row, on average.

        Stores are not counted: statements of one transaction cannot run side by side.
        """
        walked = self.walked
        size = max(1, walked.entities.size)
        parent = walked.forest.parent_row[self.rows]
        is_store = np.array([bool(_store_system(walked.spans, rows)) for rows in self.rows_of], dtype=bool)
        is_remote = np.asarray(walked.spans["kind"].array == "client")[self.rows] & (parent >= 0)
        is_remote &= ~is_store[self.code] if len(is_store) else False
        parent, code = parent[is_remote], self.code[is_remote]
        pairs = np.unique(parent * size + code)
        different = np.bincount(pairs // size, minlength=len(walked.spans) + 1)
        total = np.bincount(code, weights=different[parent], minlength=size)
        return np.asarray(total / np.maximum(np.bincount(code, minlength=size), 1))


def _query(row: Mapping[str, Any], in_a_row: float, text: str) -> Finding:
    name = str(row["name"])
    if in_a_row >= MANY_CALLS:
        return Finding(
            "N+1 queries",
            f"about {in_a_row:.0f} times in a row under one parent",
            "Fetch them in one statement: a join, IN (...), or the ORM's eager loading.",
        )
    if name.upper().startswith(("COMMIT", "END")):
        return Finding(
            "commit",
            "",
            "Commits wait for the disk and for synchronous replicas: write less per request, commit once, "
            "check the log's disk and synchronous_commit.",
        )
    if _LOCKING.search(text) or _LOCK_NAME.search(name):
        return Finding(
            "lock",
            "the statement takes locks, so its time may be waiting for another transaction",
            "Look who holds the lock (pg_locks, SHOW ENGINE INNODB STATUS); shorten that transaction or lock "
            "fewer rows.",
        )
    slow = float(row["mean_ms"]) >= SLOW_QUERY_MS
    return Finding(
        "slow query" if slow else "",
        "",
        "Look at its plan (EXPLAIN ANALYZE) for a missing index, rows read and thrown away, or lock waits."
        if slow
        else "Each is quick: make fewer of them, or keep the answer.",
    )


def _cache(row: Mapping[str, Any], in_a_row: float) -> Finding:
    if in_a_row >= MANY_CALLS:
        return Finding(
            "chatty cache",
            f"about {in_a_row:.0f} times in a row under one parent",
            "Send them together: MGET, a pipeline, or one hash.",
        )
    slow = float(row["mean_ms"]) >= SLOW_CACHE_MS
    return Finding(
        "slow cache" if slow else "",
        "",
        "A cache should answer in well under a millisecond: check the size of values, slow commands "
        "(SLOWLOG), its CPU, and connections made per call."
        if slow
        else "Each is quick: make fewer of them, or keep the answer in the process.",
    )


def _own(row: Mapping[str, Any]) -> Finding:
    name = str(row["name"])
    if _LOCK_NAME.search(name):
        return Finding("lock", "by its name it waits for a lock", "Hold the lock for less work, or split it.")
    if _POOL_NAME.search(name):
        return Finding(
            "waiting for a connection",
            "by its name it waits for a pooled connection",
            "Check the pool's size against the workers sharing it, and what keeps connections checked out.",
        )
    return Finding(
        "",
        "",
        f"{row['service']}'s own time, in no span below it: profile it there (CPU, locks, waiting for a pool "
        "or thread, calls that are not instrumented).",
    )


def _store_system(spans: pd.DataFrame, rows: Int64s) -> str:
    attributes = _attributes(spans, rows[:3])
    return str(attributes.get("db.system.name", attributes.get("db.system", "")))


def _attributes(spans: pd.DataFrame, rows: Int64s) -> dict[str, Any]:
    """Return the attributes of the first of ``rows`` that has any."""
    for text in spans["attributes"].iloc[rows].tolist():
        try:
            found = json.loads(text) if text else {}
        except ValueError:
            continue
        if isinstance(found, dict) and found:
            return found
    return {}
