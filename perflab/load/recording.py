"""One row per arrival: preallocated columns while a run goes on, a span table and its counts after it."""

from __future__ import annotations

import json
import math
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from perflab.load.egress import Address
from perflab.units import NS_PER_MS

if TYPE_CHECKING:
    import pandas as pd

OUTCOMES = (
    "",  # not begun: no row
    "answered",
    "check_failed",  # answered whole, but not as the scenario demands
    "timeout",  # no whole answer in time
    "closed",  # the connection ended in order before the answer was whole
    "reset",  # the connection broke
    "malformed",  # what came back is no HTTP answer
    "refused",  # nobody listens
    "connect_timeout",
    "unreachable",  # the network says no
    "tls_failed",
    "target_refused",  # the address is not an approved one; nothing was sent
    "abandoned",  # in flight when the controller was lost
    "missed",  # never sent
)
"""How an arrival can end."""

CODES = {name: code for code, name in enumerate(OUTCOMES)}
LATE_NS = NS_PER_MS
"""Sent more than this after it was due, a request is late."""


class Recording:
    """Columns of a run, one row per arrival of the schedule.

    Parameters
    ----------
    due_ns : numpy.ndarray of int64
        When each is due, on the clock of ``time.monotonic_ns``.
    endpoints : numpy.ndarray of int16
        Position of each one's endpoint; the one really sent, where another stood in.
    epoch_ns : int
        Unix time minus the monotonic clock.
    """

    def __init__(self, due_ns: np.ndarray, endpoints: np.ndarray, epoch_ns: int) -> None:
        size = len(due_ns)
        self.due_ns = due_ns
        self.endpoints = endpoints
        self.epoch_ns = epoch_ns
        self.begun_ns = np.zeros(size, dtype=np.int64)
        self.ended_ns = np.zeros(size, dtype=np.int64)
        self.first_ns = np.zeros(size, dtype=np.int64)
        self.connect_ns = np.zeros(size, dtype=np.int64)
        self.body_bytes = np.zeros(size, dtype=np.int64)
        self.outcome = np.zeros(size, dtype=np.uint8)
        self.http_status = np.zeros(size, dtype=np.int16)
        self.peer = np.zeros(size, dtype=np.int16)
        self.trace_high = np.zeros(size, dtype=np.uint64)
        self.trace_low = np.zeros(size, dtype=np.uint64)
        self.span = np.zeros(size, dtype=np.uint64)
        self.reasons: dict[int, str] = {}
        self.stood_in: dict[int, int] = {}

    def trace_id(self, row: int) -> str:
        """Return the trace id of a row as text."""
        return f"{int(self.trace_high[row]):016x}{int(self.trace_low[row]):016x}"

    def counts(self) -> dict[str, int]:
        """Return how many rows ended in each way; ways that did not occur are left out."""
        found = np.bincount(self.outcome, minlength=len(OUTCOMES))
        return {name: int(found[code]) for code, name in enumerate(OUTCOMES) if code and found[code]}

    def missed_reasons(self) -> dict[str, int]:
        """Return why requests were missed, and how many for each reason."""
        reasons: dict[str, int] = {}
        for row in np.flatnonzero(self.outcome == CODES["missed"]).tolist():
            reason = self.reasons.get(row, "")
            reasons[reason] = reasons.get(reason, 0) + 1
        return reasons

    def timings(self) -> dict[str, float]:
        """Return percentiles over all requests sent, in ms from due, by nearest rank.

        Returns
        -------
        dict of str to float
            ``p50_ms p99_ms p999_ms max_ms`` of the latency, ``lateness_p99_ms``; 0 where nothing was sent.
        """
        sent = (self.outcome != 0) & (self.outcome != CODES["missed"])
        latency = np.sort((self.ended_ns - self.due_ns)[sent])
        lateness = np.sort((self.begun_ns - self.due_ns)[sent])
        return {
            "p50_ms": _ranked_ms(latency, 0.5),
            "p99_ms": _ranked_ms(latency, 0.99),
            "p999_ms": _ranked_ms(latency, 0.999),
            "max_ms": _ranked_ms(latency, 1.0),
            "lateness_p99_ms": _ranked_ms(lateness, 0.99),
        }

    def spans(
        self, endpoints: Sequence[tuple[str, str]], peers: Sequence[Address], *, shadow: bool
    ) -> pd.DataFrame:
        """Return the rows begun as a span table.

        Parameters
        ----------
        endpoints : sequence of (name, method)
            By position.
        peers : sequence of Address
            What ``peer`` of each row points to.
        shadow : bool
            Whether the requests carried marks.

        Returns
        -------
        pandas.DataFrame
            A span table. A missed request begins and ends when it was given up. ``attributes`` hold
            ``endpoint server.address server.port peer.service http.request.method late_ns`` and, where there
            is something to say, ``http.response.status_code first_byte_ns connect_ns`` (durations from
            ``start_ns``), ``http.response.body.size substituted_for error.type reason``.
        """
        from perflab.trace.schema import GENERATOR_SERVICE, span_table

        rows = np.flatnonzero(self.outcome)
        names = [OUTCOMES[code] for code in self.outcome[rows].tolist()]
        size = len(rows)
        return span_table(
            {
                "trace_id": [self.trace_id(row) for row in rows.tolist()],
                "span_id": self.span[rows],
                "parent_span_id": np.zeros(size, dtype=np.uint64),
                "service": [GENERATOR_SERVICE] * size,
                "name": [endpoints[at][0] for at in self.endpoints[rows].tolist()],
                "kind": ["client"] * size,
                "status": ["unset" if name == "answered" else "error" for name in names],
                "host": [socket.gethostname()] * size,
                "start_ns": self.begun_ns[rows] + self.epoch_ns,
                "duration_ns": self.ended_ns[rows] - self.begun_ns[rows],
                "scheduled_ns": self.due_ns[rows] + self.epoch_ns,
                "shadow": np.full(size, shadow),
                "outcome": names,
                "attributes": [
                    json.dumps(self._attributes(row, endpoints, peers, shadow), ensure_ascii=False)
                    for row in rows.tolist()
                ],
            }
        )

    def _attributes(
        self, row: int, endpoints: Sequence[tuple[str, str]], peers: Sequence[Address], shadow: bool
    ) -> dict[str, Any]:
        name, method = endpoints[int(self.endpoints[row])]
        peer = peers[int(self.peer[row])]
        begun = int(self.begun_ns[row])
        outcome = OUTCOMES[int(self.outcome[row])]
        found: dict[str, Any] = {
            "endpoint": name,
            "http.request.method": method,
            "server.address": peer.host,
            "server.port": peer.port,
            "peer.service": str(peer),
            "late_ns": max(begun - int(self.due_ns[row]), 0),
        }
        if shadow:
            found["user_agent.synthetic.type"] = "test"
        if self.http_status[row]:
            found["http.response.status_code"] = int(self.http_status[row])
            found["http.response.body.size"] = int(self.body_bytes[row])
        if self.first_ns[row]:
            found["first_byte_ns"] = int(self.first_ns[row]) - begun
        if self.connect_ns[row]:
            found["connect_ns"] = int(self.connect_ns[row])
        if row in self.stood_in:
            found["substituted_for"] = endpoints[self.stood_in[row]][0]
        if outcome != "answered":
            found["error.type"] = outcome
        if row in self.reasons:
            found["reason"] = self.reasons[row]
        return found


def _ranked_ms(ascending: np.ndarray, q: float) -> float:
    if not len(ascending):
        return 0.0
    return float(ascending[max(math.ceil(q * len(ascending)), 1) - 1]) / NS_PER_MS
