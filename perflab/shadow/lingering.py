"""Threads that marked work started and that go on after its request: workers of the service, for all we know.

What marked work starts for itself is marked and soon done. A worker that a service starts when the first
request needs it goes on: whatever it is given later, by a list or an event that carries no mark, would be
done in the shadow, real users' work too. The two cannot be told apart, so who goes on for longer than
`LINGERS_S` after its request was answered ends the run, and is named. Not those that are fed by a queue,
whose items say whose work they are (`perflab.shadow.handoff`). When that run has been over for a
minute (`perflab.shadow.control.CANARY_KEPT_S`), such a thread becomes ordinary (`perflab.shadow.scope`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from perflab.shadow import scope
from perflab.shadow.handoff import Serving, serving
from perflab.shadow.ledger import LOST
from perflab.shadow.scope import OwnThread, Shadow, process

LINGERS_S = 5.0
WHY = "which shadow work started, goes on after its request: it may be given real users' work"
_lock = threading.Lock()
_going: set[_Thread] = set()


@dataclass(eq=False, slots=True)
class _Thread:
    """A thread under way: what it runs, for which request, and since when that is answered."""

    what: str
    shadow: Shadow
    request: Serving | None
    own: OwnThread
    since_s: float = 0.0
    told: bool = False


@contextmanager
def noted(function: Any) -> Iterator[None]:
    """Note that the running thread, which marked work started, runs a function."""
    shadow, own = scope.current(), scope.own_thread()
    if shadow is None or own is None:
        yield
        return
    runs = getattr(getattr(function, "__self__", None), "_target", None) or function
    name = getattr(runs, "__qualname__", type(runs).__qualname__)
    going = _Thread(f"thread {threading.current_thread().name!r} ({name})", shadow, serving.get(), own)
    with _lock:
        _going.add(going)
    try:
        yield
    finally:
        with _lock:
            _going.discard(going)


def look() -> None:
    """End the run of each thread that lingers, once; asked twice a second."""
    with _lock:
        going = tuple(_going)
    now_s = time.monotonic()
    for one in going:
        if one.request is not None and one.request.under_way:
            one.since_s = 0.0
        elif not one.since_s:
            one.since_s = now_s
        elif now_s - one.since_s > LINGERS_S and not one.told and not one.own.fed:
            one.told = True
            process.ledger.refuse(LOST, f"{one.what}, {WHY}", one.shadow.trace_id)


def forget() -> None:
    """Forget all: in a forked child no other thread goes on."""
    _going.clear()
