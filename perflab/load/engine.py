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
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from perflab.errors import TrafficError
from perflab.load.captured import CapturedValues
from perflab.load.compose import Composer, Kind
from perflab.load.connection import ConnectFailedError, Connection, Connections, Exchange
from perflab.load.egress import AllowList
from perflab.load.flight import Flight, Unended
from perflab.load.http1 import AnswerReader, MalformedAnswerError
from perflab.load.plan import Captured, Plan, Progress, Result, Started
from perflab.load.recording import Recording
from perflab.load.tally import Tally
from perflab.load.ticker import Ticker
from perflab.units import NS_PER_MS, NS_PER_S

logger = logging.getLogger(__name__)

_LEAD_NS = 20 * NS_PER_MS
_BATCH = 64


class Engine:
    """Sends what a plan says, when it says so.

    Parameters
    ----------
    plan : Plan
        What to do.

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
        self._unended = Unended(self._timeout_ns)
        self._connecting: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._next = 0
        self._stopped = ""
        self._sweeping: asyncio.TimerHandle | None = None
        self._halted = False

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
        start_ns = time.monotonic_ns() + (0 if self._plan.preflight else _LEAD_NS)
        self._recording = Recording(
            self._offsets + start_ns,
            np.array(self._sequence, dtype=np.int16),
            time.time_ns() - time.monotonic_ns(),
        )
        self._tally = Tally(self._recording, start_ns)
        self._due = array("q", self._recording.due_ns.tobytes())
        self._cpu_s = time.process_time()
        arrivals = self._plan.arrivals
        return Started(
            start_ns + self._recording.epoch_ns,
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

    def halt(self, reason: str) -> None:
        """Keep every further request from being begun, at once, from any thread; `stop` must follow."""
        self._stopped = self._stopped or reason or "stopped"
        self._halted = True

    def stop(self, reason: str) -> None:
        """Begin no further request; those in flight may end within their timeout."""
        self.halt(reason)
        while self._unended.waiting:
            self._miss(self._unended.waiting.popleft().row, "stopped")
        self._notify()

    def abandon(self, reason: str) -> None:
        """Stop, and drop what is in flight."""
        self.stop(reason)
        for task in tuple(self._connecting):
            task.cancel()
        for flight in self._unended.begun():
            if flight.connection is None:
                self._give_up(flight, "stopped")
            else:
                flight.connection.abort()
                self._end(flight, "abandoned", reason)

    def progress(self) -> Progress:
        """Return what happened since the last call, and so far."""
        waiting = len(self._unended.waiting)
        return self._tally.progress(
            time.monotonic_ns(),
            (flight.due_ns for flight in self._unended),
            len(self._unended) - waiting,
            waiting,
        )

    def result(self) -> Result:
        """Return what came out; `run` must be over."""
        result = self._tally.result(
            stopped=self._stopped, connections=self._connections.made, cpu_s=self._cpu_s
        )
        if not self._plan.preflight:
            return result
        samples = self._tally.samples(self._composer.kinds)
        return msgspec.structs.replace(result, samples=samples, captured=tuple(self._gathered))

    def save(self, path: Path) -> None:
        """Write the rows to a file of columns (see `perflab.load.recording`); `run` must be over.

        Raises
        ------
        LoadError
            If the file cannot be written.
        """
        self._recording.save(
            path,
            [(kind.name, kind.template.method) for kind in self._composer.kinds],
            self._allowed.addresses,
            shadow=self._plan.mark is not None,
        )

    # --- arrivals ---

    async def _warm(self) -> None:
        for origin in dict.fromkeys(kind.origin for kind in self._composer.kinds):
            for _ in range(self._plan.warm_connections):
                if self._halted or self._connections.open >= self._plan.connection_bound:
                    return
                self._connections.reserve()
                try:
                    self._connections.give_back(await self._connections.connect(origin))
                except ConnectFailedError as error:
                    logger.info("no connection to %s before the start: %s", origin.address, error)
                    break

    def _tick(self) -> None:
        last = min(self._next + _BATCH, len(self._due))
        while self._next < last and not self._halted:
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
            if self._halted:
                return
            due_ns = time.monotonic_ns()
            self._due[row] = self._recording.due_ns[row] = due_ns
            self._next += 1
            self._arrive(row, due_ns)
            while not self._is_idle():
                self._changed.clear()
                await self._changed.wait()

    def _arrive(self, row: int, due_ns: int) -> None:
        kind = self._composer.kinds[self._sequence[row]]
        identity = self._composer.identify()
        self._tally.offer(row, identity, kind)
        if len(self._unended) >= self._plan.max_in_flight:
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
        self._unended.waiting.append(Flight(row, due_ns, kind, data))
        self._dispatch()

    def _stand_in(self, row: int, meant: Kind) -> Kind:
        """Return the endpoint to send: the one meant, or the one that captures what it lacks."""
        kind = meant
        while (missing := self._captured.missing(kind.needs)) is not None:
            kind = self._composer.kinds[missing]
        if kind is not meant:
            self._tally.stand_in(row, meant, kind)
        return kind

    # --- sending ---

    def _dispatch(self) -> None:
        waiting = self._unended.waiting
        while waiting and not self._halted:
            connection = self._connections.take(waiting[0].kind.origin)
            if connection is not None:
                self._send(self._unended.begin(time.monotonic_ns()), connection)
            elif self._connections.reserve():
                flight = self._unended.begin(time.monotonic_ns())
                self._connecting.add(self._tasks.create_task(self._connect(flight)))
            else:
                break
        self._arm_sweep()

    async def _connect(self, flight: Flight) -> None:
        try:
            connection = await self._connections.connect(flight.kind.origin)
        except ConnectFailedError as error:
            if error.outcome == "missed":
                self._give_up(flight, f"no connection: {error.reason}")
            elif flight in self._unended:
                self._tally.send(flight.due_ns, flight.begun_ns)
                self._end(flight, error.outcome, error.reason)
        else:
            if self._halted:
                connection.abort()
                self._give_up(flight, "stopped")
            elif flight in self._unended:
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
        self._tally.send(flight.due_ns, flight.begun_ns)
        connection.send(flight.exchange)

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
        if not self._unended.end(flight):
            return
        ended_ns = ended_ns or time.monotonic_ns()
        self._tally.end(flight.row, flight.begun_ns, ended_ns, outcome, reason)
        flight.exchange = flight.connection = None
        self._notify()

    def _give_up(self, flight: Flight, reason: str) -> None:
        if self._unended.end(flight):
            self._miss(flight.row, reason)

    def _miss(self, row: int, reason: str) -> None:
        self._tally.miss(row, time.monotonic_ns(), reason)
        self._notify()

    def _arm_sweep(self) -> None:
        first_ns = self._unended.first_deadline_ns()
        if self._sweeping is None and first_ns is not None:
            after_s = max(first_ns - time.monotonic_ns(), 0) / NS_PER_S
            self._sweeping = asyncio.get_running_loop().call_later(after_s, self._sweep)

    def _sweep(self) -> None:
        self._sweeping = None
        now_ns = time.monotonic_ns()
        for flight in self._unended.expired_waiting(now_ns):
            self._miss(flight.row, "no connection came free within the timeout")
        for flight in self._unended.expired(now_ns):
            self._time_out(flight, now_ns)
        self._dispatch()

    def _time_out(self, flight: Flight, now_ns: int) -> None:
        exchange, connection = flight.exchange, flight.connection
        if exchange is None or connection is None:  # still connecting: its task will find it gone
            self._tally.send(flight.due_ns, flight.begun_ns)
            self._end(flight, "connect_timeout", "the whole timeout went by", now_ns)
            return
        self._recording.first_ns[flight.row] = exchange.first_ns
        self._recording.http_status[flight.row] = exchange.reader.status
        connection.abort()
        half = "the answer was not complete" if exchange.first_ns else "no byte of an answer"
        self._end(flight, "timeout", half, now_ns)

    # --- state ---

    def _is_over(self) -> bool:
        return self._halted or self._next >= len(self._due)

    def _is_idle(self) -> bool:
        return not (len(self._unended) or self._connecting)

    def _notify(self) -> None:
        if self._is_idle():
            self._changed.set()
