"""Queues: a message of marked work is found, judged and worked on by a shadow consumer only.

A shadow consumer is a second instance of an ordinary worker, started with
``perflab attach --shadow-consumer``: all its store access goes to shadows. From the pop of an enveloped
message to the next pop, its work belongs to that message's trace. A message whose mark is not valid is
handed to no one: it is counted and put aside as a dead letter, and the pop answers as if it timed out.
"""

from __future__ import annotations

import contextvars
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from perflab.shadow import inbound, scope
from perflab.shadow.scope import process

_trace_context = TraceContextTextMapPropagator()
_envelope: contextvars.ContextVar[str] = contextvars.ContextVar("perflab_envelope", default="")
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
    """Note the envelope of a message that was just popped."""
    _envelope.set(text)


def next_message() -> None:
    """End the work on the previous message: a consumer asks for the next one."""
    _envelope.set("")
    previous = _message.get()
    if previous is not None:
        _message.set(None)
        span, shadow_token, context_token = previous
        scope.finish(span)
        scope.leave(shadow_token)
        otel_context.detach(context_token)


def begin_message(queue_name: str) -> bool:
    """Begin the work on the message that was just popped, if it is one of marked work.

    Returns
    -------
    bool
        False if its mark is not valid (any more): a dead letter, which nobody may work on.
    """
    envelope = _envelope.get()
    if not envelope or not process.shadow_consumer:
        return True
    traceparent, _, token = envelope.partition(" ")
    try:
        parent, shadow = inbound.receive(
            {"traceparent": traceparent, "tracestate": f"perflab={token}", "baggage": f"perflab={token}"}
        )
    except inbound.Refused:
        return False
    shadow_token = scope.enter(shadow)
    attributes = {"messaging.destination.name": queue_name, "messaging.operation.type": "process"}
    span = scope.begin(f"process {queue_name}", SpanKind.CONSUMER, attributes, parent)
    context_token = otel_context.attach(trace.set_span_in_context(span, parent))
    _message.set((span, shadow_token, context_token))
    return True


def dead_letter(queue_name: str, answer: Any) -> tuple[Any, ...]:
    """Return the command that puts a refused message aside; ``answer`` is what its pop returned."""
    value = answer[-1] if isinstance(answer, (list, tuple)) else answer
    return ("RPUSH", f"perflab:dead-letters:{queue_name}", value)
