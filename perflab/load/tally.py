"""The counts of a run while it goes on, and what they come to in the end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from perflab.load.compose import Identity
from perflab.load.plan import Progress, Result, Sample
from perflab.load.recording import CODES, LATE_NS, OUTCOMES, Recording
from perflab.load.window import Histogram
from perflab.units import NS_PER_MS

if TYPE_CHECKING:
    from perflab.load.compose import Kind

_YOUNG_NS = 100 * NS_PER_MS


class Tally:
    """Counts what happens to arrivals and keeps one row of each.

    Parameters
    ----------
    recording : Recording
        The rows.
    start_ns : int
        Start of the schedule on the clock of ``time.monotonic_ns``.
    """

    def __init__(self, recording: Recording, start_ns: int) -> None:
        self.recording = recording
        self._start_ns = start_ns
        self._offered = self._sent = self._missed = self._late = self._substituted = 0
        self._outcomes: dict[str, int] = {}
        self._window = Histogram()
        self._window_errors = 0

    def offer(self, row: int, identity: Identity, kind: Kind) -> None:
        """Count an arrival that has come, and note the ids it has or would have had."""
        recording = self.recording
        recording.span[row] = identity.span_id
        recording.trace_high[row] = identity.trace_high
        recording.trace_low[row] = identity.trace_low
        recording.peer[row] = kind.peer
        self._offered += 1

    def stand_in(self, row: int, meant: Kind, sent: Kind) -> None:
        """Note that one endpoint was sent in the place of another."""
        self.recording.meant[row] = meant.at
        self.recording.endpoint[row] = sent.at
        self.recording.peer[row] = sent.peer
        self._substituted += 1

    def send(self, due_ns: int, begun_ns: int) -> None:
        """Count a request that was sent, or whose connection failed."""
        self._sent += 1
        if begun_ns - due_ns > LATE_NS:
            self._late += 1

    def end(self, row: int, begun_ns: int, ended_ns: int, outcome: str, reason: str) -> None:
        """Count the end of a request that `send` counted."""
        recording = self.recording
        recording.begun_ns[row] = begun_ns
        recording.ended_ns[row] = ended_ns
        recording.outcome[row] = CODES[outcome]
        if reason:
            recording.explain(row, reason)
        self._outcomes[outcome] = self._outcomes.get(outcome, 0) + 1
        self._window.add(ended_ns - int(recording.due_ns[row]))
        if outcome != "answered":
            self._window_errors += 1

    def miss(self, row: int, now_ns: int, reason: str) -> None:
        """Count an arrival that was given up before anything was sent."""
        recording = self.recording
        recording.begun_ns[row] = recording.ended_ns[row] = now_ns
        recording.outcome[row] = CODES["missed"]
        recording.explain(row, reason)
        self._missed += 1
        self._outcomes["missed"] = self._missed
        self._window_errors += 1

    def progress(self, now_ns: int, unended_due_ns: Iterable[int], in_flight: int, waiting: int) -> Progress:
        """Return what happened since the last call, and so far.

        Parameters
        ----------
        now_ns : int
            Time on the clock of ``time.monotonic_ns``.
        unended_due_ns : iterable of int
            When the requests that have not ended were due.
        in_flight, waiting : int
            How many of them have been begun, and how many not.
        """
        outstanding = Histogram()
        for due_ns in unended_due_ns:
            if now_ns - due_ns >= _YOUNG_NS:
                outstanding.add(now_ns - due_ns)
        progress = Progress(
            elapsed_ns=now_ns - self._start_ns,
            due=int(np.searchsorted(self.recording.due_ns, now_ns, side="right")),
            offered=self._offered,
            sent=self._sent,
            missed=self._missed,
            late=self._late,
            substituted=self._substituted,
            in_flight=in_flight,
            waiting=waiting,
            outcomes=dict(self._outcomes),
            errors=self._window_errors,
            latencies=self._window.pairs(),
            outstanding=outstanding.pairs(),
        )
        self._window.clear()
        self._window_errors = 0
        return progress

    def result(self, *, stopped: str, connections: int, cpu_s: float) -> Result:
        """Return what came out, when every request has ended."""
        recording = self.recording
        outcomes = recording.counts()
        timings = recording.timings()
        return Result(
            stopped=stopped,
            start_ns=self._start_ns + recording.epoch_ns,
            duration_ns=int(recording.ended_ns.max(initial=self._start_ns)) - self._start_ns,
            offered=self._offered,
            sent=self._sent,
            answered=outcomes.get("answered", 0),
            late=self._late,
            missed=self._missed,
            substituted=self._substituted,
            not_begun=len(recording) - self._offered,
            outcomes=outcomes,
            errors={name: count for name, count in outcomes.items() if name != "answered"},
            missed_reasons=recording.missed_reasons(),
            connections=connections,
            cpu_s=cpu_s,
            p50_ms=timings["p50_ms"],
            p99_ms=timings["p99_ms"],
            p999_ms=timings["p999_ms"],
            max_ms=timings["max_ms"],
            lateness_p99_ms=timings["lateness_p99_ms"],
        )

    def samples(self, kinds: Sequence[Kind]) -> tuple[Sample, ...]:
        """Return the rows one by one, for the few of a preflight."""
        recording = self.recording
        return tuple(
            Sample(
                endpoint=kinds[recording.endpoint[row]].name,
                trace_id=recording.trace_id(row),
                outcome=OUTCOMES[recording.outcome[row]],
                status=int(recording.http_status[row]),
                reason=recording.reason_text(row),
                duration_ms=int(recording.ended_ns[row] - recording.begun_ns[row]) / NS_PER_MS,
            )
            for row in range(self._offered)
        )
