"""Queues: a message of marked work is found, judged and worked on by a shadow consumer only.

A shadow consumer is a second instance of an ordinary worker, started with
``perflab attach --shadow-consumer``: all its store access goes to shadows. From the pop of an enveloped
message to the next pop, its work belongs to that message's trace. A message whose mark is not valid is
handed to no one: it is counted and put aside as a dead letter, and the pop answers as if it timed out. That
it waited for longer than its token lives is no reason, that its run is over is one.
Of several messages popped at once the first names the trace, and one that is not valid condemns all.
"""

from __future__ import annotations

import contextvars
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from perflab.shadow import inbound, rediskeys, scope
from perflab.shadow.scope import process

DEAD_LETTERS = "perflab:dead-letters:"
"""What the list of a queue's dead letters is called, before the queue's name (and after the prefix)."""

_trace_context = TraceContextTextMapPropagator()
_envelopes: contextvars.ContextVar[list[str] | None] = contextvars.ContextVar(
    "perflab_envelopes", default=None
)
_message: contextvars.ContextVar[tuple[Span, Any, Any] | None] = contextvars.ContextVar(
    "perflab_message", default=None
)


def headers() -> str:
    """Return the envelope's text for a message pushed by the running code."""
    carrier: dict[str, str] = {}
    _trace_context.inject(carrier)
    shadow = scope.current()
    return f"{carrier.get('traceparent', '-')} {shadow.token if shadow else ''}"


def found(text: str) -> None:
    """Note the envelope of a message that is being popped."""
    popped = _envelopes.get()
    if popped is not None:
        popped.append(text)


def next_message() -> None:
    """End the work on the previous message: a consumer asks for the next one."""
    _envelopes.set([])
    previous = _message.get()
    if previous is not None:
        _message.set(None)
        span, shadow_token, context_token = previous
        scope.finish(span)
        scope.leave(shadow_token)
        otel_context.detach(context_token)


def begin_message(queue_name: str, command: str, answer: Any) -> list[tuple[Any, ...]]:
    """Begin the work on what was just popped, if it is of marked work.

    Parameters
    ----------
    queue_name : str
        What the span calls the queue.
    command : str
        Name of the pop.
    answer
        What it returned.

    Returns
    -------
    list of tuple
        Empty when the messages may be worked on. Else they are dead letters, and these are the commands
        that put them aside.
    """
    envelopes, _ = _envelopes.get() or [], _envelopes.set(None)
    if not envelopes or not process.shadow_consumer:
        return []
    received = []
    for envelope in envelopes:
        traceparent, _, token = envelope.partition(" ")
        carried = {
            "traceparent": traceparent,
            "tracestate": f"perflab={token}",
            "baggage": f"perflab={token}",
        }
        try:
            received.append(inbound.receive(carried, waited=True))
        except inbound.Refused:
            return _put_aside(queue_name, _values(command, answer), envelopes)
    parent, shadow = received[0]
    shadow_token = scope.enter(shadow)
    attributes = {"messaging.destination.name": queue_name, "messaging.operation.type": "process"}
    if len(received) > 1:
        attributes["messaging.batch.message_count"] = str(len(received))
    span = scope.begin(f"process {queue_name}", SpanKind.CONSUMER, attributes, parent)
    context_token = otel_context.attach(trace.set_span_in_context(span, parent))
    _message.set((span, shadow_token, context_token))
    return []


def _put_aside(queue_name: str, values: list[Any], envelopes: list[str]) -> list[tuple[Any, ...]]:
    told = envelopes + [envelopes[-1]] * (len(values) - len(envelopes))
    return [
        ("RPUSH", f"{DEAD_LETTERS}{queue_name}", rediskeys.wrapped(value, envelope))
        for value, envelope in zip(values, told, strict=False)
    ]


def _values(command: str, answer: Any) -> list[Any]:
    """Return the messages in the answer of a pop."""
    if command in ("BLPOP", "BRPOP"):
        return [answer[1]]
    if command in ("LMPOP", "BLMPOP"):
        return list(answer[1])
    return list(answer) if isinstance(answer, (list, tuple)) else [answer]
