"""Whose work this is: the mark and the span of the code that is running.

Every hook asks here, and only here: is the running code marked, may it go on, which span is its parent,
which delay is planted where it stands. State is one `contextvars` variable, so it follows asyncio tasks
and `asyncio.to_thread` by itself; `perflab.shadow.threads` carries it into threads.
"""

from __future__ import annotations

import contextvars
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import getrandbits
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from perflab.errors import ShadowError
from perflab.shadow.ledger import Ledger
from perflab.shadow.mark import ENTRY

if TYPE_CHECKING:
    from perflab.shadow.control import ControlReader

T = TypeVar("T")
_LOW64 = (1 << 64) - 1
_LEFT_OUT = trace.TraceFlags(0)
_NOBODY = trace.INVALID_SPAN_CONTEXT
_chosen = threading.local()
SYNTHETIC = "user_agent.synthetic.type"


@dataclass(frozen=True, slots=True)
class Shadow:
    """The mark of the running code.

    ``tag`` is 0 for upkeep that belongs to no run but must not touch production: the idle loop of a shadow
    consumer, the background work of a twin pool.
    """

    tag: int
    token: str
    trace_id: int


_current: contextvars.ContextVar[Shadow | None] = contextvars.ContextVar("perflab_shadow", default=None)
_permitted: contextvars.ContextVar[bool] = contextvars.ContextVar("perflab_permitted", default=False)
_left_out: contextvars.ContextVar[bool] = contextvars.ContextVar("perflab_left_out", default=False)
IDLE = Shadow(0, "", 0)

current: Callable[[], Shadow | None] = _current.get
"""Return the mark of the running code, or None for ordinary work; asked so often that it is C's own."""


class OwnThread:
    """A thread that marked work started; ``fed``: from a queue, whose items say whose work they are."""

    __slots__ = ("fed",)

    def __init__(self) -> None:
        self.fed = False


_thread: contextvars.ContextVar[OwnThread | None] = contextvars.ContextVar("perflab_thread", default=None)


class Process:
    """What the hooks of one attached process share. `install` sets it once, before any hook runs."""

    service: str
    control: ControlReader
    ledger: Ledger
    tracer: trace.Tracer
    peers: Mapping[str, str]
    shadow_consumer: bool = False
    sample_bound: int = 1 << 64
    """Ordinary traces are recorded whose id's low 64 bits are below it; `install` knows no sampling."""


process = Process()


def consume_shadow() -> None:
    """Make this process a shadow consumer: all its work is shadow work, at least upkeep."""
    global current
    process.shadow_consumer = True
    current = _current_in_consumer


def _current_in_consumer() -> Shadow | None:
    return _current.get() or IDLE


def enter(shadow: Shadow | None) -> contextvars.Token[Shadow | None]:
    """Make the running context marked (or ordinary) until `leave`."""
    return _current.set(shadow)


marked: Callable[[], Shadow | None] = _current.get
"""Return the mark the running context was given; `current` knows what kind of process this is, too."""


def leave(token: contextvars.Token[Shadow | None]) -> None:
    """Undo `enter`."""
    _current.reset(token)


def own_thread() -> OwnThread | None:
    """Return the thread the running context is of, if marked work started it; it may outlive its request."""
    return _thread.get()


def begin_thread() -> None:
    """Note that the running context is such a thread's."""
    _thread.set(OwnThread())


def require_live(shadow: Shadow, store: str) -> None:
    """Check again, at a store access, that the run of marked work is still live.

    A thread that marked work started and that is still there long after the run is the service's: it is
    refused this once, and what it does next is ordinary work.

    Raises
    ------
    ShadowError
        If it is not: killed, expired, unlisted, or the list is stale.
    """
    if shadow.tag and not process.control.is_live(shadow.tag):
        if _thread.get() is not None and not process.control.was_live(shadow.tag):
            enter(None)
        refuse(store, "the run is not live any more", shadow)


def refuse(store: str, why: str, shadow: Shadow | None = None) -> NoReturn:
    """Count a refusal and raise it.

    Parameters
    ----------
    store, why : str
        What was refused, for people.
    shadow : Shadow, optional
        The mark of the work; by default the running code's.

    Raises
    ------
    ShadowError
        Always.
    """
    shadow = shadow or current() or IDLE
    process.ledger.refuse(store, why, shadow.trace_id)
    raise ShadowError(f"perflab refused shadow work in service {process.service!r}: {store}: {why}")


permitted: Callable[[], bool] = _permitted.get
"""Tell whether a covered driver or client is doing the socket work of the running code."""


class permit:  # noqa: N801 - a context manager, used like a function
    """Let the socket work inside pass the socket guard: its hook has decided already."""

    __slots__ = ("_token",)

    def __enter__(self) -> None:
        self._token = _permitted.set(True)

    def __exit__(self, *exc_info: object) -> None:
        _permitted.reset(self._token)


def forbid() -> None:
    """Withdraw `permit` in the running context: for work that leaves the call it was given to."""
    _permitted.set(False)


class withhold:  # noqa: N801 - a context manager, used like a function
    """Withdraw `permit` inside: for the service's own code that a driver calls."""

    __slots__ = ("_token",)

    def __enter__(self) -> None:
        self._token = _permitted.set(False)

    def __exit__(self, *exc_info: object) -> None:
        _permitted.reset(self._token)


def ordinary(function: Callable[[], T]) -> T:
    """Call a function in a context without mark and span: for what outlives the request, and for finalizers.

    Up to Python 3.11 the garbage collector may run within ``ContextVar.set``. A finalizer that set a variable
    in that same context would free what is being copied there, and the process would crash.
    """
    return contextvars.Context().run(function)


def suppressed() -> bool:
    """Tell whether the running code is the exporter's own."""
    return bool(otel_context.get_value(otel_context._SUPPRESS_INSTRUMENTATION_KEY))


def begin(
    name: str, kind: SpanKind, attributes: dict[str, Any], parent: otel_context.Context | None = None
) -> Span:
    """Start a span of the running code; marked work says so on it.

    Parameters
    ----------
    name, kind, attributes
        Of the span.
    parent : Context, optional
        Where it belongs; by default to the running span.
    """
    shadow = current()
    if shadow is not None:
        attributes[SYNTHETIC] = "test"
    elif parent is None and _left_out.get():
        return trace.get_current_span()
    elif parent == {}:
        return _begin_trace(name, kind, attributes, parent, None)
    else:
        caller = trace.get_current_span(parent).get_span_context()
        if not caller.is_valid:
            return _begin_trace(name, kind, attributes, parent, None)
        if caller.is_remote:
            return _begin_trace(name, kind, attributes, parent, caller)
    return process.tracer.start_span(name, parent, kind, attributes)


def leave_out(span: Span | None) -> None:
    """Have the running context's ordinary work start no spans below one that sampling left out."""
    left_out = type(span) in _NEVER_RECORDED and current() is None
    if left_out is not _left_out.get():
        _left_out.set(left_out)


in_no_trace: Callable[[], bool] = _left_out.get
"""Tell whether the request of the running code is left out, should it be ordinary work (`left_out`)."""


def left_out() -> bool:
    """Tell whether the running code is ordinary work of a request whose trace is not recorded."""
    return _left_out.get() and current() is None


def _begin_trace(
    name: str,
    kind: SpanKind,
    attributes: dict[str, Any],
    parent: otel_context.Context | None,
    caller: trace.SpanContext | None,
) -> Span:
    """Start a trace of ordinary work, or its part here; one that is left out costs next to nothing."""
    low64 = getrandbits(64) if caller is None else caller.trace_id & _LOW64
    if low64 >= process.sample_bound:
        return _LeftOut(low64, caller)
    _chosen.trace_id = getrandbits(64) << 64 | low64 if caller is None else 0
    try:
        return process.tracer.start_span(name, parent, kind, attributes)
    finally:
        _chosen.trace_id = 0


class _LeftOut(trace.NonRecordingSpan):
    """A span of a trace that sampling leaves out: it has ids once it is asked for them, most never are."""

    def __init__(self, low64: int, caller: trace.SpanContext | None) -> None:
        self._low64, self._caller = low64, caller

    def get_span_context(self) -> trace.SpanContext:
        known: trace.SpanContext | None = vars(self).get("_context")
        if known is None:
            caller = self._caller
            trace_id = (getrandbits(64) << 64 | self._low64 or 1) if caller is None else caller.trace_id
            state = None if caller is None else caller.trace_state
            made = trace.SpanContext(trace_id, getrandbits(64) or 1, False, _LEFT_OUT, state)
            return cast(
                "trace.SpanContext", vars(self).setdefault("_context", made)
            )  # whoever asks at the same time gets the same
        return known

    def __repr__(self) -> str:
        return f"NonRecordingSpan({self.get_span_context()!r})"


_NEVER_RECORDED = (_LeftOut, trace.NonRecordingSpan)


def chosen_trace_id() -> int:
    """Return the id of the trace that is just being started in this thread, 0 for any."""
    return getattr(_chosen, "trace_id", 0)


def unwatched() -> bool:
    """Tell whether there is nothing to note of the running code, so that a hook may get out of the way.

    It is ordinary work of a request, no run is live that would need its claims, and its trace is not
    recorded. What keeps the sides apart never asks here.
    """
    return _left_out.get() and current() is None and process.control.quiet


def unnamed() -> bool:
    """Tell whether nobody asks what the running code is called: it is ordinary work and in no trace."""
    return _left_out.get() and current() is None


def finish(span: Span, error: BaseException | None = None) -> None:
    """End a span, with the error that ended its work."""
    if error is not None:
        span.set_attribute("error.type", type(error).__qualname__)
        try:
            said = str(error)[:200]
        except Exception:  # an error that cannot be written down must still be the one that is raised
            said = ""
        span.set_status(Status(StatusCode.ERROR, said))
    span.end()


def delay_ns(operation: str, peer: str = "") -> int:
    """Return the delay planted at an operation of this service, or on its edge to ``peer``.

    Only marked work of a run that is live waits: nobody delays a real user, and a kill ends delays, too.
    """
    control = process.control
    if not control.planted or (shadow := current()) is None or not control.is_live(shadow.tag):
        return 0
    planted = control.delay_ns(f"{process.service}: {operation}")
    return planted + control.delay_ns(f"{process.service} -> {peer}") if peer else planted


def wait(operation: str, peer: str = "") -> None:
    """Sleep the delay planted where the running code stands."""
    planted = delay_ns(operation, peer)
    if planted:
        sleep(planted)


def sleep(planted_ns: int) -> None:
    """Sleep a planted delay, but not in a thread that runs an event loop: others would wait, too."""
    asyncio = sys.modules.get("asyncio")  # a service without one does not pay for it at its start
    if asyncio is not None and asyncio._get_running_loop() is not None:
        process.ledger.step_aside("delay: blocking call on an event loop")
        return
    time.sleep(planted_ns / 1e9)


async def async_wait(planted_ns: int) -> None:
    """Sleep a planted delay in an event loop."""
    import asyncio  # a service without one does not pay for it at its start

    await asyncio.sleep(planted_ns / 1e9)


def mark_headers(headers: Any, shadow: Shadow) -> None:
    """Put the mark on outgoing headers that already carry the trace context."""
    member = f"{ENTRY}={shadow.token}"
    for name in ("tracestate", "baggage"):
        there = headers.get(name) or ""
        if member not in there:
            headers[name] = f"{member},{there}" if there else member
