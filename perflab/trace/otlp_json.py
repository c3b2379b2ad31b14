"""The shape of an OTLP/JSON trace request: protobuf's JSON mapping, with ids in hex instead of base64.

The structs carry the protobuf messages' own field names, so that one reader serves both encodings.
Unknown fields are ignored and ``null`` means absent, as the mapping asks; 64-bit integers may be
numbers or strings, enumerations numbers or names. Whatever does not fit is refused with its path.
"""

from __future__ import annotations

from typing import Any

import msgspec

from perflab.errors import SpanFormatError

_KIND_PREFIX = "SPAN_KIND_"
_KINDS = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
_STATUS_PREFIX = "STATUS_CODE_"
_STATUSES = ("UNSET", "OK", "ERROR")


class HexId(bytes):
    """A trace or span id, written in hex."""


class WireInt(int):
    """A 64-bit integer, written as a number or as text."""


class KindCode(int):
    """A span kind, written as a number or a name."""


class StatusCode(int):
    """A status code, written as a number or a name."""


class JsonValue(msgspec.Struct, rename="camel"):
    """``AnyValue``: one of its fields is set."""

    string_value: str | None = None
    int_value: WireInt | None = None
    bool_value: bool | None = None
    double_value: float | str | None = None
    bytes_value: str | None = None
    array_value: JsonArray | None = None
    kvlist_value: JsonPairs | None = None

    def read(self) -> Any:
        """Return the value as plain Python; bytes stay base64 text."""
        if self.array_value is not None:
            return [value.read() for value in self.array_value.values or ()]
        if self.kvlist_value is not None:
            return read_json_attributes(self.kvlist_value.values)
        if self.int_value is not None:
            return int(self.int_value)
        for value in (self.string_value, self.bool_value, self.double_value):
            if value is not None:
                return value
        return self.bytes_value


class JsonArray(msgspec.Struct):
    """``ArrayValue``."""

    values: list[JsonValue] | None = None


class JsonPairs(msgspec.Struct):
    """``KeyValueList``."""

    values: list[JsonPair] | None = None


class JsonPair(msgspec.Struct):
    """``KeyValue``."""

    key: str = ""
    value: JsonValue | None = None


class JsonEvent(msgspec.Struct):
    """``Span.Event``."""

    name: str | None = None
    attributes: list[JsonPair] | None = None


class JsonLink(msgspec.Struct, rename="camel"):
    """``Span.Link``."""

    trace_id: HexId | None = None
    span_id: HexId | None = None
    attributes: list[JsonPair] | None = None


class JsonStatus(msgspec.Struct):
    """``Status``."""

    code: StatusCode | None = None
    message: str | None = None


class JsonSpan(msgspec.Struct, rename="camel"):
    """``Span``."""

    trace_id: HexId | None = None
    span_id: HexId | None = None
    parent_span_id: HexId | None = None
    name: str | None = None
    kind: KindCode | None = None
    start_time_unix_nano: WireInt | None = None
    end_time_unix_nano: WireInt | None = None
    attributes: list[JsonPair] | None = None
    events: list[JsonEvent] | None = None
    links: list[JsonLink] | None = None
    status: JsonStatus | None = None


class JsonScopeSpans(msgspec.Struct):
    """``ScopeSpans``."""

    spans: list[JsonSpan] | None = None


class JsonResource(msgspec.Struct):
    """``Resource``."""

    attributes: list[JsonPair] | None = None


class JsonResourceSpans(msgspec.Struct, rename="camel"):
    """``ResourceSpans``."""

    resource: JsonResource | None = None
    scope_spans: list[JsonScopeSpans] | None = None


class JsonRequest(msgspec.Struct, rename="camel"):
    """``ExportTraceServiceRequest``."""

    resource_spans: list[JsonResourceSpans] | msgspec.UnsetType | None = msgspec.UNSET


def decode_json(body: bytes) -> list[JsonResourceSpans]:
    """Decode an OTLP/JSON trace request.

    Raises
    ------
    SpanFormatError
        If it is no JSON, a field does not fit, or it is an object of another kind (the mapping would read
        any unknown object as an empty request); the message says which.
    """
    try:
        parts = _DECODER.decode(body).resource_spans
        if parts is msgspec.UNSET:
            names = list(msgspec.json.decode(body))
            if names:
                raise SpanFormatError(f"OTLP/JSON body has no 'resourceSpans'; its fields are {names[:10]}")
        return parts or []
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SpanFormatError(f"OTLP/JSON body of {len(body)} bytes: {error}") from error


def read_json_attributes(pairs: list[JsonPair] | None) -> dict[str, Any]:
    """Return attributes as plain Python."""
    return {pair.key: None if pair.value is None else pair.value.read() for pair in pairs or ()}


def _decode_special(wanted: type, value: Any) -> Any:
    if wanted is HexId:
        if not isinstance(value, str):
            raise ValueError(f"an id is hex text, not {value!r}")
        return HexId(bytes.fromhex(value))
    if wanted is KindCode:
        return KindCode(_enum(value, _KIND_PREFIX, _KINDS))
    if wanted is StatusCode:
        return StatusCode(_enum(value, _STATUS_PREFIX, _STATUSES))
    number = _integer(value)
    if not -(2**63) <= number < 2**64:
        raise ValueError(f"{value!r} is no 64-bit integer")
    return WireInt(number)


def _enum(value: Any, prefix: str, names: tuple[str, ...]) -> int:
    if isinstance(value, str) and value.removeprefix(prefix) in names:
        return names.index(value.removeprefix(prefix))
    if isinstance(value, str) and not value.lstrip("-").isdigit():
        raise ValueError(f"{value!r} is none of {', '.join(prefix + name for name in names)}")
    return _integer(value)


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str | float) or value != value:
        raise ValueError(f"{value!r} is no integer")
    number = int(value)
    if isinstance(value, float) and number != value:
        raise ValueError(f"{value!r} is no integer")
    return number


_DECODER = msgspec.json.Decoder(JsonRequest, dec_hook=_decode_special)
