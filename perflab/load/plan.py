"""What goes into the generator's process and what comes out, one JSON line each.

The plan carries the run's key, so it travels by a pipe only: never on a command line, never in the
environment, never in a ``repr``.
"""

from __future__ import annotations

from typing import Any

import msgspec

from perflab.errors import ConfigError
from perflab.load.arrivals import Arrivals
from perflab.shadow.mark import RunKey
from perflab.traffic.scenario import Scenario


class MarkKey(msgspec.Struct, frozen=True):
    """A `RunKey` on its way through the pipe."""

    tag: int
    key_hex: str
    not_after_s: int

    @classmethod
    def of(cls, run_key: RunKey) -> MarkKey:
        """Write a run key down."""
        return cls(run_key.tag, run_key.key.hex(), run_key.not_after_s)

    def run_key(self) -> RunKey:
        """Read the run key back."""
        return RunKey(self.tag, bytes.fromhex(self.key_hex), self.not_after_s)

    def __repr__(self) -> str:
        return f"MarkKey(tag={self.tag:#06x}, key_hex=<secret>, not_after_s={self.not_after_s})"


class Captured(msgspec.Struct, frozen=True):
    """Values captured from one answer of one endpoint, to begin with."""

    endpoint: str
    values: dict[str, Any]


class Plan(msgspec.Struct, frozen=True):
    """All the generator's process needs to know.

    Parameters
    ----------
    run_id : str
        Goes into every canary: ``plc-<run id>-<trace id>``.
    scenario : Scenario
        What is sent.
    addresses : tuple of str
        The approved ``host:port``; relative URLs go to the first.
    output : str
        Parquet file for one row per request; ``""`` writes none.
    arrivals : Arrivals, optional
        When requests are due; not needed for a preflight.
    mark : MarkKey, optional
        Key of the run's marks; without it requests carry a ``traceparent`` and no mark.
    timeout_s : float
        Longest time from the beginning of a request to its last byte; also how late one may begin.
    connect_timeout_s : float
        Longest time to connect, TLS included.
    max_in_flight : int
        Requests begun or waiting at one time; one due beyond it is missed.
    max_connections : int
        Connections at one time; requests due beyond it wait for one. 0 = as ``max_in_flight``.
    warm_connections : int
        Connections opened before the first request is due.
    idle_s : float
        Connections idle for longer are not used again; shorter than what servers commonly allow (5 s).
    lease_s : float
        Silence of the controller after which the process stops by itself.
    seed : int, optional
        Seed of endpoints' order and random values, instead of the scenario's.
    preflight : bool
        Send exactly one request per endpoint, one after another, in an order in which captures are there.
    captured : tuple of Captured
        Values captured earlier, usually by the preflight.
    """

    run_id: str
    scenario: Scenario
    addresses: tuple[str, ...]
    output: str = ""
    arrivals: Arrivals | None = None
    mark: MarkKey | None = None
    timeout_s: float = 10.0
    connect_timeout_s: float = 3.0
    max_in_flight: int = 256
    max_connections: int = 0
    warm_connections: int = 4
    idle_s: float = 4.0
    lease_s: float = 1.8
    seed: int | None = None
    preflight: bool = False
    captured: tuple[Captured, ...] = ()

    def __post_init__(self) -> None:
        if not self.preflight and self.arrivals is None:
            raise ConfigError("a plan has arrivals, unless it is a preflight")
        if min(self.timeout_s, self.connect_timeout_s, self.idle_s, self.lease_s) <= 0:
            raise ConfigError("timeouts of a plan are above 0")
        if self.max_in_flight < 1 or self.max_connections < 0:
            raise ConfigError("a plan allows at least one request in flight")

    @property
    def connection_bound(self) -> int:
        """Connections at one time."""
        return min(self.max_connections or self.max_in_flight, self.max_in_flight)


class Started(msgspec.Struct, frozen=True, tag="started"):
    """The schedule runs: arrival at offset 0 is due at ``start_ns`` (Unix epoch)."""

    start_ns: int
    arrivals: int
    duration_ns: int


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """What happened since the last such line, and so far.

    Parameters
    ----------
    elapsed_ns : int
        Since the start of the schedule.
    due : int
        Arrivals due so far.
    offered, sent, missed, late, substituted : int
        So far, ended or not.
    in_flight, waiting : int
        Now: begun and not ended; due and not begun for want of a connection.
    outcomes : dict of str to int
        Requests ended so far, per outcome.
    errors : int
        Requests that ended in this window other than ``answered``, missed ones included.
    latencies : list of (int, int)
        Histogram of due-to-end times of requests sent that ended in this window; see `window.Histogram`.
    outstanding : list of (int, int)
        Histogram of the ages, since due, of requests that have not ended now.
    """

    elapsed_ns: int
    due: int
    offered: int
    sent: int
    missed: int
    late: int
    substituted: int
    in_flight: int
    waiting: int
    outcomes: dict[str, int]
    errors: int
    latencies: list[tuple[int, int]]
    outstanding: list[tuple[int, int]]


class Sample(msgspec.Struct, frozen=True):
    """One request of a preflight."""

    endpoint: str
    trace_id: str
    outcome: str
    status: int
    reason: str
    duration_ms: float


class Result(msgspec.Struct, frozen=True, tag="result"):
    """What came out, in the end. Latencies are from due to last byte, of all requests sent.

    Parameters
    ----------
    stopped : str
        Why sending was stopped before the schedule ended; ``""`` if it was not.
    start_ns, duration_ns : int
        Start of the schedule (Unix epoch) and time to the end of the last request.
    offered : int
        ``sent + missed``: the rows written.
    not_begun : int
        Arrivals whose time had not come when sending was stopped; they have no row.
    outcomes, errors : dict of str to int
        Requests per outcome; the same without ``answered``.
    missed_reasons : dict of str to int
        Why requests were missed.
    p50_ms, p99_ms, p999_ms, max_ms, lateness_p99_ms : float
        Percentiles; 0 where nothing was sent.
    connections : int
        Connections opened.
    cpu_s : float
        Processor time of the generator's process while it sent.
    samples, captured : tuple
        Of a preflight: its requests, and what their answers gave.
    """

    stopped: str
    start_ns: int
    duration_ns: int
    offered: int
    sent: int
    answered: int
    late: int
    missed: int
    substituted: int
    not_begun: int
    outcomes: dict[str, int]
    errors: dict[str, int]
    missed_reasons: dict[str, int]
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    lateness_p99_ms: float
    connections: int
    cpu_s: float
    samples: tuple[Sample, ...] = ()
    captured: tuple[Captured, ...] = ()


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The process could not do its work: the name of a `perflab.errors` class and its message."""

    error: str
    message: str


Report = Started | Progress | Result | Failed


class Control(msgspec.Struct, frozen=True):
    """A line from the controller: ``beat`` (it is there) or ``stop`` (with a reason)."""

    do: str
    reason: str = ""
