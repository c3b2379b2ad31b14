"""For tests, ours and yours: span tables written as literals, random ones, and a clock one can turn.

>>> table = spans([
...     S("gateway", "POST /orders", 0, 100, kind="server", children=[
...         S("gateway", "POST stock", 10, 60, kind="client", children=[
...             S("stock", "POST /reserve", 15, 55, kind="server")])])])
>>> table[["service", "duration_ns"]].values.tolist()
[['gateway', 100000000], ['gateway', 50000000], ['stock', 40000000]]
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from perflab.trace.schema import GENERATOR_SERVICE, SPAN_COLUMNS, span_table
from perflab.units import NS_PER_MS, NS_PER_S, NS_PER_US, duration_ns

EPOCH_NS = 1_700_000_000 * NS_PER_S
"""Where millisecond 0 of span literals lies, as nanoseconds since the Unix epoch."""

_SERVICES = ("gateway", "order", "stock", "payment", "cart", "catalogue", "mail", "search")


@dataclass(eq=False)
class S:
    """One span of a literal, with the spans below it.

    Parameters
    ----------
    service, name : str
        As in the span table.
    start_ms, end_ms : float
        Milliseconds since `EPOCH_NS` (or the ``epoch_ns`` given to `spans`).
    kind : {'internal', 'server', 'client', 'producer', 'consumer'}
        What the span is.
    children : sequence of S
        Spans whose parent this is.
    status, host, outcome : str
        As in the span table.
    shadow : bool, optional
        Left out: as its parent; False at the top.
    scheduled_ms : float, optional
        When a generated request was due.
    links : sequence
        Written as JSON text; left out, ``""``.
    attributes : mapping
        Written as JSON text with sorted keys; left out, ``""``.
    trace : int, optional
        Number of the trace, for a top span that shares a trace with others; left out, one of its own.
    span_id, parent_span_id : int, optional
        Ids given by hand: for duplicates, orphans, cycles.
    """

    service: str
    name: str
    start_ms: float
    end_ms: float
    kind: str = "internal"
    children: Sequence[S] = field(default=(), repr=False)
    status: str = "unset"
    host: str = ""
    outcome: str = ""
    shadow: bool | None = None
    scheduled_ms: float | None = None
    links: Sequence[Mapping[str, Any]] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    trace: int | None = None
    span_id: int | None = None
    parent_span_id: int | None = None


def spans(trees: Iterable[S], *, epoch_ns: int = EPOCH_NS) -> pd.DataFrame:
    """Turn literals into a span table.

    Parameters
    ----------
    trees : iterable of S
        The top spans. Each starts a trace of its own unless it names one by ``trace``.
    epoch_ns : int
        Where millisecond 0 lies.

    Returns
    -------
    pandas.DataFrame
        A span table, depth first, parents before children. Trace ids are `trace_id` of 1, 2, 3, ...
        (of the numbers not named by hand); span ids 1, 2, 3, ... through the whole table.
    """
    tops = list(trees)
    taken = {top.trace for top in tops if top.trace is not None}
    free = (number for number in range(1, len(tops) + len(taken) + 1) if number not in taken)
    rows: list[tuple[Any, ...]] = []
    for top in tops:
        trace = trace_id(next(free) if top.trace is None else top.trace)
        stack: list[tuple[S, int, bool]] = [(top, 0, False)]
        while stack:
            span, parent, shadow = stack.pop()
            span_id = len(rows) + 1 if span.span_id is None else span.span_id
            shadow = shadow if span.shadow is None else span.shadow
            rows.append(_row(span, trace, span_id, parent, shadow, epoch_ns))
            stack.extend((child, span_id, shadow) for child in reversed(span.children))
    return span_table(dict(zip(SPAN_COLUMNS, _transpose(rows), strict=True)))


def trace_id(number: int) -> str:
    """Return the trace id that literals give to trace ``number``.

    Examples
    --------
    >>> trace_id(10)
    '0000000000000000000000000000000a'
    """
    return f"{number:032x}"


def random_forest(
    rng: random.Random | np.random.Generator | int,
    *,
    traces: int = 4,
    max_spans: int = 25,
    services: int = 4,
    asynchronous: bool = True,
    generated: bool = False,
) -> pd.DataFrame:
    """Return a random span table that a tracer could have written.

    Every span but consumers lies within its parent; calls to another service are CLIENT/SERVER pairs
    with a gap on both sides; children run one after another or overlap; some are asynchronous
    (PRODUCER, and a CONSUMER that may outlive everything). Span ids are random and unique.

    Parameters
    ----------
    rng : random.Random, numpy.random.Generator or int
        The source of chance, or a seed; the same gives the same table.
    traces : int
        Number of traces.
    max_spans : int
        Spans of a trace, at most.
    services : int
        Services there are, at most 8; their first is the entry.
    asynchronous : bool
        Whether there are producers and consumers.
    generated : bool
        Whether each trace begins with the load engine's own request, marked as shadow.

    Returns
    -------
    pandas.DataFrame
        A span table in random row order.
    """
    if isinstance(rng, np.random.Generator):
        rng = random.Random(int(rng.integers(2**62)))
    elif isinstance(rng, int):
        rng = random.Random(rng)
    names = _SERVICES[: max(1, min(services, len(_SERVICES)))]
    rows: list[tuple[Any, ...]] = []
    used = {0}
    for number in range(1, traces + 1):
        growth = _Growth(rng, names, trace_id(number), asynchronous, max_spans, used)
        start = EPOCH_NS + number * 50 * NS_PER_MS + rng.randrange(NS_PER_MS)
        growth.grow(start, rng.randrange(NS_PER_US, 100 * NS_PER_MS), generated)
        rows.extend(growth.rows)
    rng.shuffle(rows)
    return span_table(dict(zip(SPAN_COLUMNS, _transpose(rows), strict=True)))


class FakeClock:
    """A clock that stands still until it is turned.

    Parameters
    ----------
    now_ns : int
        Where it stands, as nanoseconds since the Unix epoch.

    Examples
    --------
    >>> clock = FakeClock(0)
    >>> clock.advance("1.5s")
    >>> clock.monotonic(), clock.time_ns()
    (1.5, 1500000000)
    """

    def __init__(self, now_ns: int = EPOCH_NS) -> None:
        self.now_ns = now_ns

    def advance(self, by: str | float) -> None:
        """Turn the clock on by a human duration or by seconds."""
        step_ns = duration_ns(by) if isinstance(by, str) else round(by * NS_PER_S)
        if step_ns < 0:
            raise ValueError("a clock that runs backwards is not monotonic")
        self.now_ns += step_ns

    def time_ns(self) -> int:
        """Stand in for `time.time_ns`."""
        return self.now_ns

    def monotonic_ns(self) -> int:
        """Stand in for `time.monotonic_ns`."""
        return self.now_ns

    def time(self) -> float:
        """Stand in for `time.time`."""
        return self.now_ns / NS_PER_S

    def monotonic(self) -> float:
        """Stand in for `time.monotonic`."""
        return self.now_ns / NS_PER_S

    async def sleep(self, delay_s: float) -> None:
        """Stand in for `asyncio.sleep`: turn the clock instead of waiting."""
        self.advance(delay_s)


def _row(span: S, trace: str, span_id: int, parent: int, shadow: bool, epoch_ns: int) -> tuple[Any, ...]:
    start_ns = epoch_ns + round(span.start_ms * NS_PER_MS)
    end_ns = epoch_ns + round(span.end_ms * NS_PER_MS)
    scheduled = 0 if span.scheduled_ms is None else epoch_ns + round(span.scheduled_ms * NS_PER_MS)
    return (
        trace,
        span_id,
        parent if span.parent_span_id is None else span.parent_span_id,
        span.service,
        span.name,
        span.kind,
        span.status,
        span.host,
        start_ns,
        end_ns - start_ns,
        scheduled,
        shadow,
        span.outcome,
        json.dumps(list(span.links)) if span.links else "",
        json.dumps(dict(span.attributes), sort_keys=True, ensure_ascii=False) if span.attributes else "",
    )


def _transpose(rows: Sequence[tuple[Any, ...]]) -> list[Sequence[Any]]:
    return list(zip(*rows, strict=True)) if rows else [()] * len(SPAN_COLUMNS)


class _Growth:
    """Grows one random trace, span by span, from the top."""

    def __init__(
        self,
        rng: random.Random,
        services: Sequence[str],
        trace: str,
        asynchronous: bool,
        max_spans: int,
        used: set[int],
    ) -> None:
        self.rng = rng
        self.services = services
        self.trace = trace
        self.asynchronous = asynchronous
        self.left = max_spans
        self.used = used
        self.rows: list[tuple[Any, ...]] = []
        self.shadow = False

    def grow(self, start: int, duration: int, generated: bool) -> None:
        end = start + duration
        parent = 0
        if generated and self.left > 1:
            self.shadow = True
            parent = self.add(0, GENERATOR_SERVICE, "enter", "client", start, end, due=start)
            start, end = self.inner(start, end)
        top = self.add(parent, self.services[0], "GET /", "server", start, end)
        open_spans = [(top, self.services[0], start, end)]
        while open_spans and self.left > 0:
            span_id, service, start, end = open_spans.pop(self.rng.randrange(len(open_spans)))
            for child_start, child_end in self.intervals(start, end):
                if self.left > 0:
                    open_spans.extend(self.call(span_id, service, child_start, child_end))

    def intervals(self, start: int, end: int) -> list[tuple[int, int]]:
        """Cut child intervals out of a parent's: one after another or, of shuffled points, overlapping."""
        number = self.rng.randrange(5)
        points = sorted(self.rng.randint(start, end) for _ in range(2 * number))
        if self.rng.random() < 0.4:
            self.rng.shuffle(points)
        pairs = zip(points[::2], points[1::2], strict=True)
        return [(min(pair), max(pair)) for pair in pairs]

    def call(self, parent: int, service: str, start: int, end: int) -> list[tuple[int, str, int, int]]:
        choice = self.rng.random()
        if choice < 0.25:
            table = self.rng.choice(("orders", "stock"))
            self.add(parent, service, f"SELECT {table}", "client", start, end)
            return []
        if choice < 0.4:
            return [
                (
                    self.add(parent, service, self.rng.choice("abc"), "internal", start, end),
                    service,
                    start,
                    end,
                )
            ]
        callee = self.rng.choice(self.services)
        if choice < 0.55 and self.asynchronous:
            producer = self.add(parent, service, f"send {callee}", "producer", start, end)
            if self.left <= 0:
                return []
            begin = start + self.rng.randrange(5 * NS_PER_MS)
            finish = begin + self.rng.randrange(20 * NS_PER_MS)
            consumer = self.add(producer, callee, f"process {callee}", "consumer", begin, finish)
            return [(consumer, callee, begin, finish)]
        client = self.add(parent, service, f"GET {callee}", "client", start, end)
        if self.left <= 0 or callee == service:
            return []
        start, end = self.inner(start, end)
        server = self.add(client, callee, f"GET /{self.rng.choice('xyz')}", "server", start, end)
        return [(server, callee, start, end)]

    def inner(self, start: int, end: int) -> tuple[int, int]:
        first = self.rng.randint(start, end)
        second = self.rng.randint(start, end)
        return min(first, second), max(first, second)

    def add(self, parent: int, service: str, name: str, kind: str, start: int, end: int, due: int = 0) -> int:
        span_id = 0
        while span_id in self.used:
            span_id = self.rng.getrandbits(64)
        self.used.add(span_id)
        self.left -= 1
        status = "error" if self.rng.random() < 0.05 else "unset"
        outcome = "answered" if due else ""
        place = (self.trace, span_id, parent, service, name, kind, status, f"{service}-1")
        self.rows.append((*place, start, end - start, due, self.shadow, outcome, "", ""))
        return span_id
