"""A simulator of open queueing systems that writes span tables: the truth that predictions are held against.

Requests arrive when they are told to, pass a course of work and calls, one after another or beside each
other, and wait first come, first served for one of the workers of each station. All times are drawn per
request beforehand, so that a second run with other factors meets the very same requests.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from perflab.testing import EPOCH_NS, trace_id
from perflab.trace.schema import span_table

Then = Callable[[float], None]
FRONT = "front"
FRONT_NAME = f"{FRONT}: GET /"


@dataclass(frozen=True)
class Station:
    """What serves calls.

    ``shape`` is that of the gamma distribution of its times (1: exponential, more: steadier). A traced one
    is a service: its span begins when a worker takes the call, waiting is in the edge. One that is not is
    seen only by its caller, whose span holds waiting and service.
    """

    name: str
    mean_ms: float
    workers: int = 1
    shape: float = 1.0
    traced: bool = False

    @property
    def entity(self) -> str:
        return f"{self.name}: serve" if self.traced else f"{FRONT}: {self.name}"


@dataclass(frozen=True)
class Work:
    mean_ms: float


@dataclass(frozen=True)
class Call:
    station: str


@dataclass(frozen=True)
class One:
    """Steps one after another."""

    steps: tuple[Any, ...]


@dataclass(frozen=True)
class Beside:
    """Steps beside each other."""

    steps: tuple[Any, ...]


@dataclass(frozen=True)
class System:
    """Stations and the course of every request."""

    stations: tuple[Station, ...]
    course: One

    def calls(self, name: str) -> int:
        """How often a request calls a station."""
        return sum(isinstance(leaf, Call) and leaf.station == name for leaf in _leaves(self.course))

    def utilisation(self, name: str, per_s: float) -> float:
        station = next(one for one in self.stations if one.name == name)
        return per_s / 1000 * self.calls(name) * station.mean_ms / station.workers

    def capacity(self) -> float:
        """Return the rate per second at which the first station has no time left."""
        return 1 / max(self.utilisation(one.name, 1.0) for one in self.stations)


def poisson(per_s: float, requests: int, seed: int) -> np.ndarray:
    """Return arrivals in ms."""
    return np.cumsum(np.random.default_rng(seed).exponential(1000 / per_s, requests))


def ramp(from_per_s: float, to_per_s: float, seconds: float, seed: int) -> np.ndarray:
    """Return Poisson arrivals in ms whose rate rises linearly."""
    rng = np.random.default_rng(seed)
    highest = max(from_per_s, to_per_s)
    at = np.cumsum(rng.exponential(1000 / highest, int(highest * seconds * 1.2) + 50))
    at = at[at < seconds * 1000]
    wanted = from_per_s + (to_per_s - from_per_s) * at / (seconds * 1000)
    return at[rng.random(len(at)) < wanted / highest]


def simulate(
    system: System, arrivals_ms: np.ndarray, seed: int, factors: Mapping[str, float] | None = None
) -> pd.DataFrame:
    """Return the spans of a run; ``factors`` by entity, the edge's excepted."""
    return _Run(system, arrivals_ms, seed, factors or {}).play()


def mean_ms(table: pd.DataFrame) -> float:
    """Return the mean duration of requests."""
    return float(table["duration_ns"][table["parent_span_id"] == 0].mean()) / 1e6


def _leaves(step: Any) -> list[Any]:
    return [leaf for one in step.steps for leaf in _leaves(one)] if hasattr(step, "steps") else [step]


@dataclass
class _Desk:
    free: int
    waiting: deque[Callable[[float], None]] = field(default_factory=deque)


class _Run:
    def __init__(self, system: System, arrivals: np.ndarray, seed: int, factors: Mapping[str, float]) -> None:
        rng = np.random.default_rng([seed, 1])  # not the stream that arrivals of this seed are drawn from
        self.system, self.arrivals = system, arrivals
        self.stations = {one.name: one for one in system.stations}
        self.desks = {one.name: _Desk(one.workers) for one in system.stations}
        self.events: list[tuple[float, int, Callable[[float], None]]] = []
        self.counted = 0
        self.rows: list[tuple[Any, ...]] = []
        self.number = {id(leaf): place for place, leaf in enumerate(_leaves(system.course))}
        columns = []
        for leaf in _leaves(system.course):
            station = self.stations.get(getattr(leaf, "station", ""))
            shape = station.shape if station else 4.0
            mean = (station.mean_ms if station else leaf.mean_ms) * factors.get(
                station.entity if station else FRONT_NAME, 1.0
            )
            columns.append(rng.gamma(shape, 1 / shape, len(arrivals)) * mean)
        self.times = np.array(columns).T.tolist()

    def play(self) -> pd.DataFrame:
        for number, at in enumerate(self.arrivals.tolist()):
            self.at(at, lambda now, number=number: self.begin(number, now))
        while self.events:
            now, _, then = heapq.heappop(self.events)
            then(now)
        names = ("trace_id", "span_id", "parent_span_id", "service", "name", "kind", "start_ns", "end_ns")
        columns = dict(zip(names, zip(*self.rows, strict=True), strict=True))
        start, end = (
            EPOCH_NS + np.rint(np.array(columns.pop(name)) * 1e6).astype(np.int64)
            for name in ("start_ns", "end_ns")
        )
        return span_table({**columns, "start_ns": start, "duration_ns": end - start})

    def at(self, when: float, then: Then) -> None:
        self.counted += 1
        heapq.heappush(self.events, (when, self.counted, then))

    def begin(self, number: int, now: float) -> None:
        root = self.span_id()
        self.step(
            self.system.course, number, root, now,
            lambda end: self.rows.append((trace_id(number), root, 0, FRONT, "GET /", "server", now, end)),
        )  # fmt: skip

    def step(self, step: Any, number: int, root: int, now: float, then: Then) -> None:
        if isinstance(step, One):
            self.follow(step.steps, number, root, now, then)
        elif isinstance(step, Beside):
            left = [len(step.steps)]

            def join(end: float) -> None:
                left[0] -= 1
                if not left[0]:
                    then(end)

            for one in step.steps:
                self.step(one, number, root, now, join)
        else:
            took = self.times[number][self.number[id(step)]]
            if isinstance(step, Work):
                self.at(now + took, then)
            else:
                self.call(self.stations[step.station], took, number, root, now, then)

    def follow(self, steps: Sequence[Any], number: int, root: int, now: float, then: Then) -> None:
        if not steps:
            then(now)
            return
        self.step(steps[0], number, root, now, lambda end: self.follow(steps[1:], number, root, end, then))

    def call(
        self,
        station: Station,
        took: float,
        number: int,
        root: int,
        sent: float,
        then: Then,
    ) -> None:
        desk = self.desks[station.name]

        def serve(taken: float) -> None:
            desk.free -= 1
            self.at(taken + took, lambda end: over(taken, end))

        def over(taken: float, end: float) -> None:
            client = self.span_id()
            trace = trace_id(number)
            name = f"GET {station.name}" if station.traced else station.name
            self.rows.append((trace, client, root, FRONT, name, "client", sent, end))
            if station.traced:
                self.rows.append((trace, self.span_id(), client, station.name, "serve", "server", taken, end))
            desk.free += 1
            if desk.waiting:
                desk.waiting.popleft()(end)
            then(end)

        if desk.free:
            serve(sent)
        else:
            desk.waiting.append(serve)

    def span_id(self) -> int:
        self.counted += 1
        return self.counted
