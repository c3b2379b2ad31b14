"""The open-model engine: every arrival is begun when it is due, whatever became of those before it.

One ticker goes through a schedule computed beforehand and never waits for an answer. There is no task per
request; a request is a small `Flight` that its connection calls back. What happens to an arrival is decided
here and written into one row of the `Recording`:

- begun, on a kept connection or a new one, and ended in one of the ways of `recording.OUTCOMES`;
- missed: the in-flight bound was reached, no connection came free within the timeout, the generator itself
  was more than the timeout behind, the request could not be built, or sending was stopped first.
"""

from __future__ import annotations

import asyncio
import logging
import time
from array import array
from collections import OrderedDict, deque
from typing import Any

import numpy as np

from perflab.errors import TrafficError
from perflab.load.captured import CapturedValues
from perflab.load.compose import Composer, Kind
from perflab.load.connection import ConnectFailedError, Connection, Connections, Exchange
from perflab.load.egress import AllowList
from perflab.load.http1 import AnswerReader, MalformedAnswerError
from perflab.load.plan import Captured, Plan, Progress, Result, Sample, Started
from perflab.load.recording import CODES, LATE_NS, Recording
from perflab.load.ticker import Ticker
from perflab.load.window import Histogram
from perflab.units import NS_PER_MS, NS_PER_S

logger = logging.getLogger(__name__)

_LEAD_NS = 20 * NS_PER_MS
_BATCH = 64
_YOUNG_NS = 100 * NS_PER_MS


class Flight:
    """An arrival that has begun to be dealt with and has not ended."""

    __slots__ = ("begun_ns", "connection", "data", "deadline_ns", "due_ns", "exchange", "kind", "row")

    def __init__(self, row: int, due_ns: int, kind: Kind, data: bytes) -> None:
        self.row = row
        self.due_ns = due_ns
        self.kind = kind
        self.data = data
        self.begun_ns = 0
        self.deadline_ns = 0
        self.connection: Connection | None = None
        self.exchange: Exchange | None = None


class Engine:
    """Sends what a plan says, when it says so.

    Parameters
    ----------
    plan : Plan
        What to do.

    Attributes
    ----------
    halted : bool
        Set to True from any thread, it keeps every further request from being begun, at once.

    Raises
    ------
    TargetRefused
        If an endpoint's address is not approved.
    TrafficError
        If the scenario cannot be used.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._allowed = AllowList(plan.addresses)
        self._composer = Composer(plan, self._allowed)
        if plan.preflight or plan.arrivals is None:
            chosen = np.array(plan.scenario.order(), dtype=np.int16)
            self._offsets = np.zeros(len(chosen), dtype=np.int64)
        else:
            self._offsets = plan.arrivals.schedule(plan.seed)
            chosen = plan.scenario.sequence(len(self._offsets), plan.seed)
        self._sequence = array("h", chosen.tobytes())
        self._timeout_ns = round(plan.timeout_s * NS_PER_S)
        self._connections = Connections(
            self._allowed, plan.connection_bound, plan.connect_timeout_s, plan.idle_s
        )
        self._captured = CapturedValues(plan.scenario, plan.captured)
        self._gathered: list[Captured] = []
        self._flights: OrderedDict[int, Flight] = OrderedDict()
        self._waiting: deque[Flight] = deque()
        self._connecting: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._next = 0
        self._sent = self._missed = self._late = 0
        self._stopped = ""
        self._sweeping: asyncio.TimerHandle | None = None
        self._outcomes: dict[str, int] = {}
        self._window = Histogram()
        self._window_errors = 0
        self.halted = False

    async def prepare(self) -> Started:
        """Resolve and pin the addresses, open the first connections, and set the start.

        Raises
        ------
        LoadError
            If a name cannot be resolved.
        """
        await self._allowed.pin()
        if not self._plan.preflight:
            await self._warm()
        self._epoch_ns = time.time_ns() - time.monotonic_ns()
        self._start_ns = time.monotonic_ns() + (0 if self._plan.preflight else _LEAD_NS)
        endpoints = np.array(self._sequence, dtype=np.int16)
        self._recording = Recording(self._offsets + self._start_ns, endpoints, self._epoch_ns)
        self._due = array("q", self._recording.due_ns.tobytes())
        self._cpu_s = time.process_time()
        arrivals = self._plan.arrivals
        return Started(
            self._start_ns + self._epoch_ns,
            len(self._due),
            arrivals.duration_ns if arrivals and not self._plan.preflight else 0,
        )

    async def run(self) -> None:
        """Go through the schedule, or the preflight, until the last request has ended; `prepare` comes first.

        Raises
        ------
        LoadError
            If the timer fails.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as self._tasks:
            if self._plan.preflight:
                await self._run_preflight()
            else:
                self._ticker = Ticker(loop, self._tick)
                try:
                    if len(self._due):
                        self._ticker.arm(self._due[0])
                    while not (self._is_over() and self._is_idle()):
                        self._changed.clear()
                        await self._changed.wait()
                finally:
                    self._ticker.close()
        if self._sweeping is not None:
            self._sweeping.cancel()
        self._cpu_s = time.process_time() - self._cpu_s
        self._connections.close()

    def stop(self, reason: str) -> None:
        """Begin no further request; those in flight may end within their timeout."""
        if self._stopped:
            return
        self._stopped = reason or "stopped"
        self.halted = True
        while self._waiting:
            self._miss(self._waiting.popleft().row, "stopped")
        self._notify()

    def abandon(self, reason: str) -> None:
        """Stop, and drop what is in flight."""
        self.stop(reason)
        for task in tuple(self._connecting):
            task.cancel()
        for flight in tuple(self._flights.values()):
            if flight.connection is None:
                self._give_up(flight, "stopped")
            else:
                flight.connection.abort()
                self._end(flight, "abandoned", reason)

    def progress(self) -> Progress:
        """Return what happened since the last call, and so far."""
        now_ns = time.monotonic_ns()
        outstanding = Histogram()
        for flights in (self._flights.values(), self._waiting):
            for flight in flights:
                if now_ns - flight.due_ns >= _YOUNG_NS:
                    outstanding.add(now_ns - flight.due_ns)
        progress = Progress(
            elapsed_ns=now_ns - self._start_ns,
            due=int(np.searchsorted(self._recording.due_ns, now_ns, side="right")),
            offered=self._next,
            sent=self._sent,
            missed=self._missed,
            late=self._late,
            substituted=len(self._recording.stood_in),
            in_flight=len(self._flights),
            waiting=len(self._waiting),
            outcomes=dict(self._outcomes),
            errors=self._window_errors,
            latencies=self._window.pairs(),
            outstanding=outstanding.pairs(),
        )
        self._window.clear()
        self._window_errors = 0
        return progress

    def result(self) -> Result:
        """Return what came out; `run` must be over."""
        recording = self._recording
        outcomes = recording.counts()
        last_ns = int(recording.ended_ns.max(initial=self._start_ns))
        samples = range(self._next) if self._plan.preflight else range(0)
        return Result(
            stopped=self._stopped,
            start_ns=self._start_ns + self._epoch_ns,
            duration_ns=last_ns - self._start_ns,
            offered=self._next,
            sent=self._sent,
            answered=outcomes.get("answered", 0),
            late=self._late,
            missed=self._missed,
            substituted=len(recording.stood_in),
            not_begun=len(self._due) - self._next,
            outcomes=outcomes,
            errors={name: count for name, count in outcomes.items() if name != "answered"},
            missed_reasons=recording.missed_reasons(),
            connections=self._connections.made,
            cpu_s=self._cpu_s,
            samples=tuple(self._sample(row) for row in samples),
            captured=tuple(self._gathered),
            **recording.timings(),
        )

    def spans(self) -> Any:
        """Return the rows as a span table; `run` must be over."""
        return self._recording.spans(
            [(kind.name, kind.template.method) for kind in self._composer.kinds],
            self._allowed.addresses,
            shadow=self._plan.mark is not None,
        )

    # --- arrivals ---

    async def _warm(self) -> None:
        for origin in dict.fromkeys(kind.origin for kind in self._composer.kinds):
            for _ in range(self._plan.warm_connections):
                if self.halted or not self._connections.reserve():
                    return
                try:
                    self._connections.give_back(await self._connections.connect(origin))
                except ConnectFailedError as error:
                    logger.info("no connection to %s before the start: %s", origin.address, error)
                    break

    def _tick(self) -> None:
        last = min(self._next + _BATCH, len(self._due))
        while self._next < last and not self.halted:
            due_ns = self._due[self._next]
            if due_ns > time.monotonic_ns():
                break
            self._next += 1
            self._arrive(self._next - 1, due_ns)
        if self._is_over():
            self._notify()
        else:
            self._ticker.arm(self._due[self._next])

    async def _run_preflight(self) -> None:
        for row in range(len(self._due)):
            if self.halted:
                return
            due_ns = time.monotonic_ns()
            self._due[row] = self._recording.due_ns[row] = due_ns
            self._next += 1
            self._arrive(row, due_ns)
            while not self._is_idle():
                self._changed.clear()
                await self._changed.wait()

    def _arrive(self, row: int, due_ns: int) -> None:
        recording = self._recording
        kind = self._composer.kinds[self._sequence[row]]
        identity = self._composer.identify()
        recording.span[row] = identity.span_id
        recording.trace_high[row] = identity.trace_high
        recording.trace_low[row] = identity.trace_low
        recording.peer[row] = kind.peer
        if len(self._flights) + len(self._waiting) >= self._plan.max_in_flight:
            self._miss(row, "in-flight bound reached")
            return
        if time.monotonic_ns() - due_ns > self._timeout_ns:
            self._miss(row, "generator behind by more than the timeout")
            return
        if kind.needs and not self._plan.preflight:
            kind = self._stand_in(row, kind)
        try:
            values = self._captured.draw(kind.needs) if kind.needs else {}
            data = self._composer.compose(kind, identity, row, values)
        except TrafficError as error:
            self._miss(row, f"not built: {error}")
            return
        self._waiting.append(Flight(row, due_ns, kind, data))
        self._dispatch()

    def _stand_in(self, row: int, meant: Kind) -> Kind:
        """Return the endpoint to send: the one meant, or the one that captures what it lacks."""
        kind = meant
        while (missing := self._captured.missing(kind.needs)) is not None:
            kind = self._composer.kinds[missing]
        if kind is not meant:
            self._recording.stood_in[row] = meant.at
            self._recording.endpoints[row] = kind.at
            self._recording.peer[row] = kind.peer
        return kind

    # --- sending ---

    def _dispatch(self) -> None:
        while self._waiting and not self.halted:
            origin = self._waiting[0].kind.origin
            connection = self._connections.take(origin)
            if connection is not None:
                self._send(self._begin(self._waiting.popleft()), connection)
            elif self._connections.reserve():
                flight = self._begin(self._waiting.popleft())
                task = self._tasks.create_task(self._connect(flight))
                self._connecting.add(task)
            else:
                break
        self._arm_sweep()

    def _begin(self, flight: Flight) -> Flight:
        flight.begun_ns = time.monotonic_ns()
        flight.deadline_ns = flight.begun_ns + self._timeout_ns
        self._flights[flight.row] = flight
        return flight

    async def _connect(self, flight: Flight) -> None:
        try:
            connection = await self._connections.connect(flight.kind.origin)
        except ConnectFailedError as error:
            if error.outcome == "missed":
                self._give_up(flight, f"no connection: {error.reason}")
            elif flight.row in self._flights:
                self._count_sent(flight)
                self._end(flight, error.outcome, error.reason)
        else:
            if self.halted:
                connection.abort()
                self._give_up(flight, "stopped")
            elif flight.row in self._flights:
                self._recording.connect_ns[flight.row] = time.monotonic_ns() - flight.begun_ns
                self._send(flight, connection)
            else:  # it has timed out meanwhile
                self._connections.give_back(connection)
        finally:
            task = asyncio.current_task()
            assert task is not None
            self._connecting.discard(task)
            self._notify()
        self._dispatch()

    def _send(self, flight: Flight, connection: Connection) -> None:
        kind = flight.kind
        reader = AnswerReader(kind.template.method, kind.judge.needs_body)
        flight.connection = connection
        flight.exchange = Exchange(
            flight.data, reader, lambda outcome, reason: self._ended(flight, outcome, reason)
        )
        self._count_sent(flight)
        connection.send(flight.exchange)

    def _count_sent(self, flight: Flight) -> None:
        self._sent += 1
        if flight.begun_ns - flight.due_ns > LATE_NS:
            self._late += 1

    # --- endings ---

    def _ended(self, flight: Flight, outcome: str, reason: str) -> None:
        exchange = flight.exchange
        assert exchange is not None
        reader = exchange.reader
        self._recording.first_ns[flight.row] = exchange.first_ns
        self._recording.http_status[flight.row] = reader.status
        self._recording.body_bytes[flight.row] = reader.body_bytes
        ended_ns = time.monotonic_ns()
        if outcome == "answered":
            kind = flight.kind
            try:
                body = reader.body() if kind.judge.needs_body else b""
            except MalformedAnswerError as error:
                outcome, reason = "malformed", str(error)
            else:
                failure, values = kind.judge.judge(reader.status, body, ended_ns - flight.due_ns)
                if failure:
                    outcome, reason = "check_failed", failure
                elif values:
                    self._keep(kind, values)
        self._end(flight, outcome, reason, ended_ns)
        self._dispatch()

    def _keep(self, kind: Kind, values: dict[str, Any]) -> None:
        self._captured.put(kind.at, values)
        if self._plan.preflight:
            self._gathered.append(Captured(kind.name, values))

    def _end(self, flight: Flight, outcome: str, reason: str = "", ended_ns: int = 0) -> None:
        row, recording = flight.row, self._recording
        if self._flights.pop(row, None) is None:
            return
        ended_ns = ended_ns or time.monotonic_ns()
        recording.begun_ns[row] = flight.begun_ns
        recording.ended_ns[row] = ended_ns
        recording.outcome[row] = CODES[outcome]
        if reason:
            recording.reasons[row] = reason
        self._outcomes[outcome] = self._outcomes.get(outcome, 0) + 1
        self._window.add(ended_ns - flight.due_ns)
        if outcome != "answered":
            self._window_errors += 1
        flight.exchange = flight.connection = None
        self._notify()

    def _give_up(self, flight: Flight, reason: str) -> None:
        if self._flights.pop(flight.row, None) is not None:
            self._miss(flight.row, reason)

    def _miss(self, row: int, reason: str) -> None:
        recording = self._recording
        recording.begun_ns[row] = recording.ended_ns[row] = time.monotonic_ns()
        recording.outcome[row] = CODES["missed"]
        recording.reasons[row] = reason
        self._missed += 1
        self._outcomes["missed"] = self._missed
        self._window_errors += 1
        self._notify()

    def _arm_sweep(self) -> None:
        if self._sweeping is not None:
            return
        first_ns = [next(iter(self._flights.values())).deadline_ns] if self._flights else []
        if self._waiting:
            first_ns.append(self._waiting[0].due_ns + self._timeout_ns)
        if first_ns:
            after_s = max(min(first_ns) - time.monotonic_ns(), 0) / NS_PER_S
            self._sweeping = asyncio.get_running_loop().call_later(after_s, self._sweep)

    def _sweep(self) -> None:
        """End what has run out of time; all have the same timeout, so the oldest are first."""
        self._sweeping = None
        now_ns = time.monotonic_ns()
        while self._waiting and self._waiting[0].due_ns + self._timeout_ns <= now_ns:
            self._miss(self._waiting.popleft().row, "no connection came free within the timeout")
        while self._flights:
            flight = next(iter(self._flights.values()))
            if flight.deadline_ns > now_ns:
                break
            self._time_out(flight, now_ns)
        self._dispatch()

    def _time_out(self, flight: Flight, now_ns: int) -> None:
        exchange, connection = flight.exchange, flight.connection
        if exchange is None or connection is None:  # still connecting: its task will find it gone
            self._count_sent(flight)
            self._end(flight, "connect_timeout", "the whole timeout went by", now_ns)
            return
        self._recording.first_ns[flight.row] = exchange.first_ns
        self._recording.http_status[flight.row] = exchange.reader.status
        connection.abort()
        half = "the answer was not complete" if exchange.first_ns else "no byte of an answer"
        self._end(flight, "timeout", half, now_ns)

    # --- state ---

    def _is_over(self) -> bool:
        return self.halted or self._next >= len(self._due)

    def _is_idle(self) -> bool:
        return not (self._flights or self._waiting or self._connecting)

    def _notify(self) -> None:
        if self._is_idle():
            self._changed.set()

    def _sample(self, row: int) -> Sample:
        recording = self._recording
        return Sample(
            endpoint=self._composer.kinds[int(recording.endpoints[row])].name,
            trace_id=recording.trace_id(row),
            outcome=next(name for name, code in CODES.items() if code == recording.outcome[row]),
            status=int(recording.http_status[row]),
            reason=recording.reasons.get(row, ""),
            duration_ms=int(recording.ended_ns[row] - recording.begun_ns[row]) / NS_PER_MS,
        )
