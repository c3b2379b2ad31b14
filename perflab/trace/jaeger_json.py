"""The shape of Jaeger's JSON, and what its tags say.

Unknown fields are ignored. What may be missing or written in two ways (numbers as text) is so here; whether a
span can be used is told by `perflab.trace.jaeger`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

_KINDS = frozenset(("internal", "server", "client", "producer", "consumer"))
_SYNTHETIC = "user_agent.synthetic.type"
_NO_RAW = msgspec.Raw(b"[]")
_TEXT = msgspec.json.Encoder()
_CONVERTED: dict[str, Callable[[str], Any]] = {
    "int64": int,
    "float64": float,
    "bool": lambda text: {"true": True, "false": False}[text.lower()],
}


class JaegerReference(msgspec.Struct, gc=False):
    """What a span refers to; Jaeger's UI puts a copy of the whole span in it, which is skipped."""

    ref_type: str = msgspec.field(default="CHILD_OF", name="refType")
    trace_id: str = msgspec.field(default="", name="traceID")
    span_id: str = msgspec.field(default="", name="spanID")


class JaegerTag(msgspec.Struct, gc=False):
    """A tag, or a field of a log."""

    key: str
    type: str = ""
    value: Any = None


class JaegerLog(msgspec.Struct, gc=False):
    """Something that happened during a span."""

    fields: list[JaegerTag] | None = None


class JaegerProcess(msgspec.Struct, gc=False):
    """Who a span is of."""

    service_name: str = msgspec.field(default="", name="serviceName")
    tags: list[JaegerTag] | None = None


class JaegerSpan(msgspec.Struct, gc=False):
    """A span as it is written."""

    trace_id: str | None = msgspec.field(default=None, name="traceID")
    span_id: str | None = msgspec.field(default=None, name="spanID")
    parent_span_id: str | None = msgspec.field(default=None, name="parentSpanID")
    operation_name: str = msgspec.field(default="", name="operationName")
    references: list[JaegerReference] | None = None
    start_time: int | float | str | None = msgspec.field(default=None, name="startTime")
    duration: int | float | str | None = None
    tags: msgspec.Raw = _NO_RAW
    logs: msgspec.Raw = _NO_RAW
    process_id: str | None = msgspec.field(default=None, name="processID")
    process: JaegerProcess | None = None
    warnings: list[str] | None = None


class JaegerTrace(msgspec.Struct, gc=False):
    """A trace."""

    spans: list[JaegerSpan]
    trace_id: str | None = msgspec.field(default=None, name="traceID")
    processes: dict[str, JaegerProcess] | None = None


class BrokenTrace(msgspec.Struct, gc=False):
    """A trace one of whose spans is broken: they are decoded one by one."""

    spans: list[msgspec.Raw]
    trace_id: str | None = msgspec.field(default=None, name="traceID")
    processes: dict[str, JaegerProcess] | None = None


TRACE, BROKEN_TRACE = msgspec.json.Decoder(JaegerTrace), msgspec.json.Decoder(BrokenTrace)
SPAN = msgspec.json.Decoder(JaegerSpan)
_TAGS = msgspec.json.Decoder(list[JaegerTag] | None)
LOGS = msgspec.json.Decoder(list[JaegerLog] | None)


@dataclass(frozen=True)
class Tagged:
    """What a span's tags say."""

    attributes: dict[str, Any]
    text: str
    kind: str
    status: str
    is_shadow: bool


def read_tags(text: bytes) -> Tagged:
    """Read a span's tags from their JSON."""
    tags = _TAGS.decode(text) or ()
    attributes = {
        tag.key: typed(tag) if tag.type in _CONVERTED and type(tag.value) is str else tag.value
        for tag in tags
    }
    kind = str(attributes.pop("span.kind", "")).lower()
    code = str(attributes.pop("otel.status_code", "")).upper()
    error = attributes.get("error")
    if error is not None and (isinstance(error, bool) or str(error).lower() in ("true", "false")):
        del attributes["error"]
        error = error is True or str(error).lower() == "true"
    is_shadow = attributes.get(_SYNTHETIC) == "test"
    if is_shadow:
        del attributes[_SYNTHETIC]
    failed = code == "ERROR" or bool(error) or (error is None and not code and _has_failed(attributes, kind))
    status = "error" if failed else "ok" if code == "OK" else "unset"
    told = _TEXT.encode(attributes).decode() if attributes else ""
    return Tagged(attributes, told, kind if kind in _KINDS else "", status, is_shadow)


def typed(tag: JaegerTag) -> Any:
    """Return a tag's value as what its type says; numbers and truths may be written as text."""
    try:
        if isinstance(tag.value, str) and tag.type in _CONVERTED:
            return _CONVERTED[tag.type](tag.value)
    except (ValueError, KeyError):
        pass  # it is what it is
    return tag.value


def _has_failed(attributes: dict[str, Any], kind: str) -> bool:
    """Tell by OpenTelemetry's rule whether an HTTP status is an error of this kind of span."""
    code = attributes.get("http.status_code", attributes.get("http.response.status_code"))
    if code is None:
        return False
    number = int(code) if isinstance(code, int) or (isinstance(code, str) and code.isdigit()) else 0
    return number >= (500 if kind == "server" else 400)
