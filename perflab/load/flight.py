"""Requests that are due and have not ended."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator

from perflab.load.compose import Kind
from perflab.load.connection import Connection, Exchange


class Flight:
    """An arrival that has begun to be dealt with and has not ended."""

    __slots__ = ("begun_ns", "connection", "data", "due_ns", "exchange", "kind", "row")

    def __init__(self, row: int, due_ns: int, kind: Kind, data: bytes) -> None:
        self.row = row
        self.due_ns = due_ns
        self.kind = kind
        self.data = data
        self.begun_ns = 0
        self.connection: Connection | None = None
        self.exchange: Exchange | None = None


class Unended:
    """All flights: those that wait for a connection, by due time, and those begun, by begin.

    All have the same timeout, so the first of either is the first to run out of time.

    Parameters
    ----------
    timeout_ns : int
        From the beginning to the end; and from due to the beginning.
    """

    def __init__(self, timeout_ns: int) -> None:
        self.waiting: deque[Flight] = deque()
        self._begun: OrderedDict[int, Flight] = OrderedDict()
        self._timeout_ns = timeout_ns

    def __len__(self) -> int:
        return len(self.waiting) + len(self._begun)

    def __iter__(self) -> Iterator[Flight]:
        yield from self._begun.values()
        yield from self.waiting

    def __contains__(self, flight: Flight) -> bool:
        return flight.row in self._begun

    def begun(self) -> tuple[Flight, ...]:
        """Return the flights begun, oldest first."""
        return tuple(self._begun.values())

    def begin(self, now_ns: int) -> Flight:
        """Take the first that waits and count it as begun."""
        flight = self.waiting.popleft()
        flight.begun_ns = now_ns
        self._begun[flight.row] = flight
        return flight

    def end(self, flight: Flight) -> bool:
        """Take a flight begun off; return whether it was still there."""
        return self._begun.pop(flight.row, None) is not None

    def first_deadline_ns(self) -> int | None:
        """Return when the next one runs out of time; None if there is none."""
        times = [next(iter(self._begun.values())).begun_ns] if self._begun else []
        if self.waiting:
            times.append(self.waiting[0].due_ns)
        return min(times) + self._timeout_ns if times else None

    def expired_waiting(self, now_ns: int) -> Iterator[Flight]:
        """Take off, and yield, those that have waited for as long as the timeout."""
        while self.waiting and self.waiting[0].due_ns + self._timeout_ns <= now_ns:
            yield self.waiting.popleft()

    def expired(self, now_ns: int) -> tuple[Flight, ...]:
        """Return the flights begun that have run out of time."""
        found = []
        for flight in self._begun.values():
            if flight.begun_ns + self._timeout_ns > now_ns:
                break
            found.append(flight)
        return tuple(found)
