"""One row per arrival: preallocated columns while a run goes on, a file of columns after it, then spans.

The generator's process knows only numpy, so that it starts in a moment; it leaves its columns in a file. The
controller, which has pandas anyway, makes the span table of it.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from perflab.errors import LoadError
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

_COLUMNS = (
    "due_ns",
    "begun_ns",
    "ended_ns",
    "first_ns",
    "connect_ns",
    "body_bytes",
    "endpoint",
    "meant",
    "peer",
    "outcome",
    "http_status",
    "reason",
    "trace_high",
    "trace_low",
    "span",
)
_ATTRIBUTED = (
    *("due_ns", "begun_ns", "first_ns", "connect_ns", "body_bytes"),
    *("endpoint", "meant", "peer", "http_status", "reason"),
)
_MOST_REASONS = 1000


class Recording:
    """Columns of a run, one row per arrival of the schedule.

    Times are on the clock of ``time.monotonic_ns``.

    Parameters
    ----------
    due_ns : numpy.ndarray of int64
        When each is due.
    endpoint : numpy.ndarray of int16
        Position of the endpoint each is meant for; `stand_in` changes the one sent.
    epoch_ns : int
        Unix time minus the monotonic clock.
    """

    def __init__(self, due_ns: np.ndarray, endpoint: np.ndarray, epoch_ns: int) -> None:
        size = len(due_ns)
        self.due_ns = due_ns
        self.begun_ns = np.zeros(size, dtype=np.int64)
        self.ended_ns = np.zeros(size, dtype=np.int64)
        self.first_ns = np.zeros(size, dtype=np.int64)
        self.connect_ns = np.zeros(size, dtype=np.int64)
        self.body_bytes = np.zeros(size, dtype=np.int64)
        self.endpoint = endpoint
        self.meant = endpoint.copy()
        self.peer = np.zeros(size, dtype=np.int16)
        self.outcome = np.zeros(size, dtype=np.uint8)
        self.http_status = np.zeros(size, dtype=np.int16)
        self.reason = np.zeros(size, dtype=np.int32)
        self.trace_high = np.zeros(size, dtype=np.uint64)
        self.trace_low = np.zeros(size, dtype=np.uint64)
        self.span = np.zeros(size, dtype=np.uint64)
        self.epoch_ns = epoch_ns
        self._reasons = {"": 0}

    def __len__(self) -> int:
        return len(self.due_ns)

    def explain(self, row: int, reason: str) -> None:
        """Note why a request ended as it did; after a thousand different reasons the rest are *other*."""
        if reason not in self._reasons and len(self._reasons) >= _MOST_REASONS:
            reason = "other"
        self.reason[row] = self._reasons.setdefault(reason, len(self._reasons))

    def reason_text(self, row: int) -> str:
        """Return why a request ended as it did, ``""`` where nothing is known."""
        return list(self._reasons)[int(self.reason[row])]

    def trace_id(self, row: int) -> str:
        """Return the trace id of a row as text."""
        return f"{int(self.trace_high[row]):016x}{int(self.trace_low[row]):016x}"

    def counts(self) -> dict[str, int]:
        """Return how many rows ended in each way; ways that did not occur are left out."""
        found = np.bincount(self.outcome, minlength=len(OUTCOMES))
        return {name: int(found[code]) for code, name in enumerate(OUTCOMES) if code and found[code]}

    def missed_reasons(self) -> dict[str, int]:
        """Return why requests were missed, and how many for each reason."""
        found = np.bincount(self.reason[self.outcome == CODES["missed"]], minlength=len(self._reasons))
        return {text: int(found[code]) for text, code in self._reasons.items() if found[code]}

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

    def save(
        self, path: Path, endpoints: Sequence[tuple[str, str]], peers: Sequence[Address], *, shadow: bool
    ) -> None:
        """Write the rows begun to a file of columns, in one step.

        Parameters
        ----------
        path : Path
            The file; its directory is made if need be.
        endpoints : sequence of (name, method)
            By position.
        peers : sequence of Address
            What ``peer`` of each row points to.
        shadow : bool
            Whether the requests carried marks.

        Raises
        ------
        LoadError
            If it cannot be written.
        """
        about = {
            "epoch_ns": self.epoch_ns,
            "endpoints": list(endpoints),
            "peers": [(peer.host, peer.port) for peer in peers],
            "shadow": shadow,
            "reasons": list(self._reasons),
        }
        begun = self.outcome != 0
        columns = {name: getattr(self, name)[begun] for name in _COLUMNS}
        aside = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with aside.open("wb") as file:
                np.savez(file, about=np.array(json.dumps(about)), **columns)
            aside.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                aside.unlink()
            raise LoadError(f"cannot write the generator's rows to {path}: {error}") from error


def rows_path(output: str | Path) -> Path:
    """Return where the columns of a run are left until they are a span table in ``output``."""
    return Path(output).with_suffix(".rows.npz")


def saved_spans(path: Path) -> pd.DataFrame:
    """Return the rows that `Recording.save` wrote as a span table.

    Returns
    -------
    pandas.DataFrame
        A span table. A missed request begins and ends when it was given up. ``attributes`` hold ``endpoint
        server.address server.port peer.service http.request.method late_ns`` and, where there is something
        to say, ``http.response.status_code first_byte_ns connect_ns`` (durations from ``start_ns``),
        ``http.response.body.size substituted_for error.type reason``.

    Raises
    ------
    LoadError
        If it cannot be read.
    """
    from perflab.trace.schema import GENERATOR_SERVICE, span_table

    try:
        with np.load(path, allow_pickle=False) as file:
            columns = {name: file[name] for name in _COLUMNS}
            about = json.loads(str(file["about"]))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise LoadError(f"cannot read the generator's rows in {path}: {error}") from error
    size = len(columns["due_ns"])
    outcomes = [OUTCOMES[code] for code in columns["outcome"].tolist()]
    ids = zip(columns["trace_high"].tolist(), columns["trace_low"].tolist(), strict=True)
    return span_table(
        {
            "trace_id": [f"{high:016x}{low:016x}" for high, low in ids],
            "span_id": columns["span"],
            "parent_span_id": np.zeros(size, dtype=np.uint64),
            "service": [GENERATOR_SERVICE] * size,
            "name": [about["endpoints"][at][0] for at in columns["endpoint"].tolist()],
            "kind": ["client"] * size,
            "status": ["unset" if outcome == "answered" else "error" for outcome in outcomes],
            "host": [socket.gethostname()] * size,
            "start_ns": columns["begun_ns"] + about["epoch_ns"],
            "duration_ns": columns["ended_ns"] - columns["begun_ns"],
            "scheduled_ns": columns["due_ns"] + about["epoch_ns"],
            "shadow": np.full(size, about["shadow"]),
            "outcome": outcomes,
            "attributes": _attributes(columns, about, outcomes),
        }
    )


def _attributes(columns: dict[str, np.ndarray], about: dict[str, Any], outcomes: list[str]) -> list[str]:
    texts = []
    lists = {name: values.tolist() for name, values in columns.items()}
    for row, outcome in enumerate(outcomes):
        due, begun, first, connect, body, endpoint, meant, peer, status, reason = (
            lists[name][row] for name in _ATTRIBUTED
        )
        name, method = about["endpoints"][endpoint]
        host, port = about["peers"][peer]
        found: dict[str, Any] = {
            "endpoint": name,
            "http.request.method": method,
            "server.address": host,
            "server.port": port,
            "peer.service": str(Address(host, port)),
            "late_ns": max(begun - due, 0),
        }
        if about["shadow"]:
            found["user_agent.synthetic.type"] = "test"
        if status:
            found |= {"http.response.status_code": status, "http.response.body.size": body}
        if first:
            found["first_byte_ns"] = first - begun
        if connect:
            found["connect_ns"] = connect
        if meant != endpoint:
            found["substituted_for"] = about["endpoints"][meant][0]
        if outcome != "answered":
            found["error.type"] = outcome
        if reason:
            found["reason"] = about["reasons"][reason]
        texts.append(json.dumps(found, ensure_ascii=False))
    return texts


def _ranked_ms(ascending: np.ndarray, q: float) -> float:
    if not len(ascending):
        return 0.0
    return float(ascending[max(math.ceil(q * len(ascending)), 1) - 1]) / NS_PER_MS
