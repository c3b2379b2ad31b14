"""What an attached process saw and did, in numbers that can be added up and shipped.

The agent reports it to the controller twice a second. The audit needs two parts of it: *sessions* (with
which login was marked work done) and *claims* (which writes of unmarked work should be found in
production's change stream).
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import Any

from perflab.shadow.uncovered import what_is

FORMAT = 1
"""Of the reports agents post; a controller that reads another one refuses runs through that agent."""
LOST = "the mark"
"""As the store of a refusal: shadow and ordinary work could not be told apart; the run is stopped."""
CLAIMS_KEPT = 50_000
REFUSALS_KEPT = 200


class Ledger:
    """Counters of one process. Every method is safe to call from any thread and never raises."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._claims: deque[dict[str, Any]] = deque(maxlen=CLAIMS_KEPT)
        self._claims_lost = 0
        self._refusals: deque[dict[str, Any]] = deque(maxlen=REFUSALS_KEPT)
        self._sessions: Counter[tuple[str, str, str, bool]] = Counter()
        self._outbound: Counter[tuple[str, str]] = Counter()
        self._marks: Counter[str] = Counter()
        self._durations_ns: deque[int] = deque()
        self._latency: Counter[int] = Counter()
        self._errors = 0
        self._stepped_aside: Counter[str] = Counter()
        self.hooks: dict[str, dict[str, str]] = {}
        self.uncovered: set[str] = set()

    def successor(self) -> Ledger:
        """Return the ledger of a forked child: nothing counted yet, what is (not) covered as it was."""
        child = Ledger()
        child.hooks, child.uncovered = dict(self.hooks), set(self.uncovered)
        return child

    def claim(
        self, store: str, fingerprint: str, begin_ns: int, end_ns: int, *, background: bool = False
    ) -> None:
        """Note one write of unmarked work.

        Parameters
        ----------
        store, fingerprint : str
            Where, and what the audit should find.
        begin_ns, end_ns : int
            Between which two moments (Unix ns).
        background : bool
            Whether it was done outside of every request, by a thread that may have been handed anything.
        """
        row = {"store": store, "fingerprint": fingerprint, "begin_ns": begin_ns, "end_ns": end_ns}
        with self._lock:
            if len(self._claims) == CLAIMS_KEPT:
                self._claims_lost += 1
            self._claims.append({**row, "background": True} if background else row)

    def refuse(self, store: str, what: str, trace_id: int) -> None:
        """Note marked work that was refused before it was sent."""
        with self._lock:
            self._refusals.append(
                {"store": store, "what": what, "trace_id": f"{trace_id:032x}", "time_ns": time.time_ns()}
            )

    def session(self, store: str, user: str, database: str, *, shadow: bool) -> None:
        """Count one store access of marked work by the login it used."""
        with self._lock:
            self._sessions[store, user, database, shadow] += 1

    def outbound(self, peer: str, action: str) -> None:
        """Count one outgoing call of marked work by what became of it."""
        with self._lock:
            self._outbound[peer, action] += 1

    def mark(self, kind: str) -> None:
        """Count one judged request: ``marked`` or ``refused: <reason>``."""
        with self._lock:
            self._marks[kind] += 1

    def unmarked_request(self, duration_ns: int, *, failed: bool) -> None:
        """Count one served request of a real user."""
        self._durations_ns.append(duration_ns)  # counted when they are asked for: nobody waits for it then
        if failed:
            with self._lock:
                self._errors += 1

    def step_aside(self, where: str) -> None:
        """Count a hook that failed on unmarked work and let it through untouched."""
        with self._lock:
            self._stepped_aside[where] += 1

    def holes(self, service: str) -> set[str]:
        """Return what this process does not cover, each as the scenario would name it to accept it."""
        return holes_of(service, self.hooks, self.uncovered)

    def take(self) -> dict[str, Any]:
        """Return the report: cumulative counters, and the claims and refusals since the last call."""
        with self._lock:
            for _ in range(len(self._durations_ns)):
                self._latency[bucket_of(self._durations_ns.popleft())] += 1
            claims, refusals = list(self._claims), list(self._refusals)
            self._claims.clear()
            self._refusals.clear()
            return {
                "hooks": dict(self.hooks),
                "uncovered": sorted(self.uncovered),
                "claims": claims,
                "claims_lost": self._claims_lost,
                "refusals": refusals,
                "sessions": [
                    {
                        "store": store,
                        "user": user,
                        "database": database,
                        "shadow": shadow,
                        "marked_calls": calls,
                    }
                    for (store, user, database, shadow), calls in self._sessions.items()
                ],
                "outbound": [
                    {"name": peer, "action": action, "marked_calls": calls}
                    for (peer, action), calls in self._outbound.items()
                ],
                "marks": dict(self._marks),
                "unmarked": {
                    "latency": {str(key): count for key, count in self._latency.items()},
                    "errors": self._errors,
                },
                "stepped_aside": dict(self._stepped_aside),
            }

    def give_back(self, report: dict[str, Any]) -> None:
        """Put the claims and refusals of a report that could not be delivered back."""
        with self._lock:
            for claim in reversed(report["claims"]):
                if len(self._claims) == CLAIMS_KEPT:
                    self._claims_lost += 1
                else:
                    self._claims.appendleft(claim)
            self._refusals.extendleft(reversed(report["refusals"]))


def holes_of(service: str, hooks: Mapping[str, Mapping[str, str]], uncovered: Iterable[str]) -> set[str]:
    """Name the holes of one process.

    Parameters
    ----------
    service : str
        What tables call it.
    hooks : mapping
        Hook -> its ``state``, ``version`` and ``reason``.
    uncovered : iterable of str
        Drivers it imported that no hook covers.

    Returns
    -------
    set of str
        ``<service>: hook <name> is off``, ``<service>: driver <name> is not covered`` (or ``server``).
    """
    off = {
        f"{service}: hook {name} is {state['state']}"
        for name, state in hooks.items()
        if state["state"] != "on"
    }
    return off | {f"{service}: {what_is(name)} {name} is not covered" for name in uncovered}


_STEP = math.log(1.04)


def bucket_of(duration_ns: int) -> int:
    """Return the histogram bucket of a duration: 4 % wide, from 1 us."""
    return int(math.log(duration_ns / 1000) / _STEP) if duration_ns > 1000 else 0


def bucket_middle_ns(bucket: int) -> float:
    """Return the middle of a bucket, in ns (geometric; within 2 % of every value in it)."""
    return 1000 * math.exp((bucket + 0.5) * _STEP)
