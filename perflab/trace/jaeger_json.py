"""The shape of Jaeger's JSON, and what its tags say.

Unknown fields are ignored. What may be missing or written in two ways (numbers as text) is so here; whether a
span can be used is told by `perflab.trace.jaeger`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

_KINDS = frozenset(("internal", "server", "client", "producer", "consumer"))
_SYNTHETIC = "user_agent.synthetic.type"
_OWN = frozenset(
    ("span.kind", "otel.status_code", "error", _SYNTHETIC, "http.status_code", "http.response.status_code")
)
"""Tags that say more than an attribute does."""
_MOST_KEPT = 50_000
_GIVEN_UP = 10
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
_TAG, _TAG_LIST = msgspec.json.Decoder(JaegerTag), msgspec.json.Decoder(list[msgspec.Raw] | None)
LOGS = msgspec.json.Decoder(list[JaegerLog] | None)


class Tagged(NamedTuple):
    """What a span's tags say: its attributes as JSON, and fields of its own."""

    text: str
    kind: str
    status: str
    is_shadow: bool


class TagReader:
    """Reads spans' tags, each distinct text once: many spans carry the same ones, and most tags are the same.

    No object is made of a span's tags: its attributes are put together from those of single tags. Of a key
    that is there twice both stay, and the later counts, as everywhere in JSON.
    """

    def __init__(self) -> None:
        self._hits = self._misses = 0
        self._tagged: dict[bytes, Tagged] = {}
        self._tags: dict[bytes, tuple[str, str, Any]] = {}

    def read(self, text: msgspec.Raw) -> Tagged:
        """Return what the JSON of a span's tags says.

        Raises
        ------
        msgspec.DecodeError
            If they are no tags.
        """
        if self._misses > _GIVEN_UP * (self._hits + 100):  # spans are all different: do not look any more
            return self._read(text)
        content = bytes(text)
        found = self._tagged.get(content)
        if found is not None:
            self._hits += 1
            return found
        self._misses += 1
        found = self._read(content)
        if len(self._tagged) < _MOST_KEPT:
            self._tagged[content] = found
        return found

    def _read(self, text: bytes | msgspec.Raw) -> Tagged:
        members: list[str] = []
        own: dict[str, Any] = {}
        known = self._tags
        for raw in _TAG_LIST.decode(text) or ():
            content = bytes(raw)
            member, key, value = known.get(content) or self._read_tag(content)
            if member:
                members.append(member)
            if key:
                own[key] = value
        text_of_all = f"{{{','.join(members)}}}" if members else ""
        if not own:
            return Tagged(text_of_all, "", "unset", False)
        kind, code = str(own.get("span.kind", "")).lower(), own.get("otel.status_code")
        code, error = str(code).upper() if code else "", own.get("error")
        failed = code == "ERROR" or bool(error) or (error is None and not code and _has_failed(own, kind))
        status = "error" if failed else "ok" if code == "OK" else "unset"
        return Tagged(text_of_all, kind if kind in _KINDS else "", status, own.get(_SYNTHETIC) == "test")

    def _read_tag(self, content: bytes) -> tuple[str, str, Any]:
        """Return a tag's attribute as text, and its key and value if it says more than an attribute."""
        tag = _TAG.decode(content)
        value = typed(tag)
        key = tag.key if tag.key in _OWN else ""
        if key == "error":
            is_flag = isinstance(value, bool) or str(value).lower() in ("true", "false")
            member = "" if is_flag else told(tag.key, value)
            value = str(value).lower() == "true" if is_flag else value
        elif key in ("span.kind", "otel.status_code") or (key == _SYNTHETIC and value == "test"):
            member = ""
        else:
            member = told(tag.key, value)
        if len(self._tags) < _MOST_KEPT:
            self._tags[content] = member, key, value
        return member, key, value


def told(key: str, value: Any) -> str:
    """Return a member of a JSON object."""
    return _TEXT.encode({key: value})[1:-1].decode()


def typed(tag: JaegerTag) -> Any:
    """Return a tag's value as what its type says; numbers and truths may be written as text."""
    try:
        if isinstance(tag.value, str) and tag.type in _CONVERTED:
            return _CONVERTED[tag.type](tag.value)
    except (ValueError, KeyError):
        pass  # it is what it is
    return tag.value


def _has_failed(own: dict[str, Any], kind: str) -> bool:
    """Tell by OpenTelemetry's rule whether an HTTP status is an error of this kind of span."""
    code = own.get("http.status_code", own.get("http.response.status_code"))
    if code is None:
        return False
    number = int(code) if isinstance(code, int) or (isinstance(code, str) and code.isdigit()) else 0
    return number >= (500 if kind == "server" else 400)
