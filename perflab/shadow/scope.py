"""Whose work this is: the mark and the span of the code that is running.

Every hook asks here, and only here: is the running code marked, may it go on, which span is its parent,
which delay is planted where it stands. State is one `contextvars` variable, so it follows asyncio tasks
and `asyncio.to_thread` by itself; `perflab.shadow.threads` carries it into threads.
"""

from __future__ import annotations

import contextvars
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from perflab.errors import ShadowError
from perflab.shadow.ledger import Ledger
from perflab.shadow.mark import ENTRY

if TYPE_CHECKING:
    from perflab.shadow.control import ControlReader

T = TypeVar("T")
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
IDLE = Shadow(0, "", 0)


class Process:
    """What the hooks of one attached process share. `install` sets it once, before any hook runs."""

    service: str
    control: ControlReader
    ledger: Ledger
    tracer: trace.Tracer
    peers: Mapping[str, str]
    shadow_consumer: bool = False


process = Process()


def current() -> Shadow | None:
    """Return the mark of the running code, or None for ordinary work."""
    found = _current.get()
    return IDLE if found is None and process.shadow_consumer else found


def enter(shadow: Shadow | None) -> contextvars.Token[Shadow | None]:
    """Make the running context marked (or ordinary) until `leave`."""
    return _current.set(shadow)


def leave(token: contextvars.Token[Shadow | None]) -> None:
    """Undo `enter`."""
    _current.reset(token)


def require_live(shadow: Shadow, store: str) -> None:
    """Check again, at a store access, that the run of marked work is still live.

    Raises
    ------
    ShadowError
        If it is not: killed, expired, unlisted, or the list is stale.
    """
    if shadow.tag and not process.control.is_live(shadow.tag):
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


def permitted() -> bool:
    """Tell whether a covered driver or client is doing the socket work of the running code."""
    return _permitted.get()


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


def ordinary(function: Callable[[], T]) -> T:
    """Call a function in a context without mark and span (for what outlives the request)."""
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
    return process.tracer.start_span(name, parent, kind, attributes)


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
    """Return the delay planted at an operation of this service, or on its edge to ``peer``."""
    control = process.control
    planted = control.delay_ns(f"{process.service}: {operation}")
    return planted + control.delay_ns(f"{process.service} -> {peer}") if peer else planted


def wait(operation: str, peer: str = "") -> None:
    """Sleep the delay planted where the running code stands."""
    planted = delay_ns(operation, peer)
    if planted:
        time.sleep(planted / 1e9)


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
