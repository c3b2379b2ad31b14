"""OTLP/HTTP request bodies, protobuf or JSON, to span tables.

Decoding goes to plain column lists first (`Batch`): a receiver gets many small bodies, and building a
table for each would cost more than decoding it. Field names and encodings follow the OpenTelemetry
protocol, https://opentelemetry.io/docs/specs/otlp/ (1.5).
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import pandas as pd
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from perflab.errors import SpanFormatError
from perflab.trace.otlp_json import decode_json, read_json_attributes
from perflab.trace.schema import SPAN_COLUMNS, span_table

PROTOBUF = "application/x-protobuf"
JSON = "application/json"

_KINDS = ("internal", "internal", "server", "client", "producer", "consumer")
_STATUSES = ("unset", "ok", "error")
_SYNTHETIC = "user_agent.synthetic.type"
_INSTANCE = "service.instance.id"
_MAX_NS = 2**63 - 1
_ERROR = 2
_PLAIN = frozenset(("string_value", "int_value", "bool_value", "double_value"))
_TEXT = msgspec.json.Encoder(order="sorted")
_ReadAttributes = Callable[[Any], dict[str, Any]]


@dataclass
class Batch:
    """Spans as column lists.

    Attributes
    ----------
    columns : dict of str to list
        The columns of the span table but ``scheduled_ns`` and ``outcome``, which OTLP does not carry.
    refused : int
        Spans left out because they have no usable id or time.
    reason : str
        Where the first refused span stood and what was wrong with it; ``""`` if none was refused.
    """

    columns: dict[str, list[Any]] = field(
        default_factory=lambda: {name: [] for name in SPAN_COLUMNS if name not in ("scheduled_ns", "outcome")}
    )
    refused: int = 0
    reason: str = ""

    def __len__(self) -> int:
        return len(self.columns["span_id"])

    def refuse(self, where: str, why: str) -> None:
        """Count a span that is left out."""
        self.refused += 1
        self.reason = self.reason or f"{where}: {why}"


def decode_traces(body: bytes, content_type: str) -> pd.DataFrame:
    """Decode an ``ExportTraceServiceRequest``.

    Parameters
    ----------
    body : bytes
        The request's body, not compressed.
    content_type : str
        ``application/x-protobuf`` or ``application/json``; parameters after ``;`` are ignored.

    Returns
    -------
    pandas.DataFrame
        A span table. ``service`` and ``host`` come from the resource's ``service.name`` and
        ``host.name``; ``shadow`` is true where ``user_agent.synthetic.type`` is ``test``.
        ``attributes`` has the span's own, ``service.instance.id`` of the resource, and of a failed span
        ``otel.status_description``, ``exception.type`` and ``exception.message``.

    Raises
    ------
    SpanFormatError
        If the body is not what ``content_type`` says, or a span has no usable id or time; the message
        says where. `decode_batch` counts such spans instead.
    """
    batch = decode_batch(body, content_type)
    if batch.refused:
        raise SpanFormatError(
            f"{batch.refused} of {batch.refused + len(batch)} spans have no usable id or time; "
            f"the first is {batch.reason}"
        )
    return batch_table([batch])


def decode_batch(body: bytes, content_type: str) -> Batch:
    """Decode an ``ExportTraceServiceRequest``, counting spans that cannot be used.

    Parameters
    ----------
    body, content_type
        As for `decode_traces`.

    Raises
    ------
    SpanFormatError
        If the body is not what ``content_type`` says.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type not in (PROTOBUF, JSON):
        raise SpanFormatError(f"OTLP traces come as {PROTOBUF} or {JSON}, not as {content_type!r}")
    read = _read_attributes if media_type == PROTOBUF else read_json_attributes
    batch = Batch()
    parts = _parse_protobuf(body) if media_type == PROTOBUF else decode_json(body)
    for place, part in enumerate(parts):
        try:
            _read_resource(part, f"resourceSpans[{place}]", batch, read)
        except RecursionError as error:
            raise SpanFormatError(f"an attribute in resourceSpans[{place}] is nested too deeply") from error
    return batch


def batch_table(batches: Iterable[Batch]) -> pd.DataFrame:
    """Join batches into one span table, rows in the order received."""
    joined: dict[str, Any] = Batch().columns
    for batch in batches:
        for name, values in batch.columns.items():
            joined[name].extend(values)
    for name in ("span_id", "parent_span_id"):
        joined[name] = np.array(joined[name], dtype=np.uint64)
    return span_table(joined)


def _parse_protobuf(body: bytes) -> Any:
    try:
        return ExportTraceServiceRequest.FromString(body).resource_spans
    except DecodeError as error:
        raise SpanFormatError(
            f"OTLP/protobuf body of {len(body)} bytes, beginning {bytes(body[:16]).hex(' ')}: {error}"
        ) from error


def _read_resource(part: Any, where: str, batch: Batch, read: _ReadAttributes) -> None:
    resource = read(part.resource.attributes) if part.resource is not None else {}
    service = str(resource.get("service.name") or "unknown_service")
    host = str(resource.get("host.name") or "")
    instance = resource.get(_INSTANCE)
    columns = batch.columns
    before = len(batch)
    for scope_place, scope in enumerate(part.scope_spans or ()):
        for place, span in enumerate(scope.spans or ()):
            fault = _fault(span)
            if fault:
                batch.refuse(f"{where}.scopeSpans[{scope_place}].spans[{place}]", fault)
                continue
            _read_span(span, columns, read, instance)
    added = len(batch) - before
    columns["service"].extend([service] * added)
    columns["host"].extend([host] * added)


def _fault(span: Any) -> str:
    """Say why a span cannot be used, or ``""``."""
    trace_id, span_id, parent_id = span.trace_id or b"", span.span_id or b"", span.parent_span_id or b""
    if len(trace_id) != 16 or not any(trace_id):
        return f"trace id {trace_id.hex() or 'missing'!r} is not 16 bytes other than zero"
    if len(span_id) != 8 or not any(span_id):
        return f"span id {span_id.hex() or 'missing'!r} is not 8 bytes other than zero"
    if parent_id and len(parent_id) != 8:
        return f"parent span id {parent_id.hex()!r} is not 8 bytes"
    start, end = span.start_time_unix_nano or 0, span.end_time_unix_nano or 0
    if not (0 < start <= _MAX_NS and 0 < end <= _MAX_NS):
        return f"start {start} or end {end} is no time in nanoseconds since 1970"
    return ""


def _read_span(span: Any, columns: dict[str, list[Any]], read: _ReadAttributes, instance: Any) -> None:
    attributes = read(span.attributes)
    status = (span.status.code or 0) if span.status is not None else 0
    if status == _ERROR:
        _add_failure(attributes, span, read)
    is_shadow = attributes.get(_SYNTHETIC) == "test"
    if is_shadow:
        del attributes[_SYNTHETIC]
    if instance is not None:
        attributes.setdefault(_INSTANCE, instance)
    kind = span.kind or 0
    start = span.start_time_unix_nano
    columns["trace_id"].append(span.trace_id.hex())
    columns["span_id"].append(int.from_bytes(span.span_id, "big"))
    columns["parent_span_id"].append(int.from_bytes(span.parent_span_id or b"", "big"))
    columns["name"].append(span.name or "")
    columns["kind"].append(_KINDS[kind] if 0 <= kind < len(_KINDS) else "internal")
    columns["status"].append(_STATUSES[status] if 0 <= status < len(_STATUSES) else "unset")
    columns["start_ns"].append(int(start))
    columns["duration_ns"].append(span.end_time_unix_nano - start)
    columns["shadow"].append(is_shadow)
    columns["links"].append(_links(span.links, read) if span.links else "")
    columns["attributes"].append(_TEXT.encode(attributes).decode() if attributes else "")


def _add_failure(attributes: dict[str, Any], span: Any, read: _ReadAttributes) -> None:
    """Keep of a failed span's status and events what names the failure."""
    if span.status.message:
        attributes.setdefault("otel.status_description", span.status.message)
    for event in span.events or ():
        if event.name == "exception":
            raised = read(event.attributes)
            for name in ("exception.type", "exception.message"):
                if name in raised:
                    attributes.setdefault(name, raised[name])


def _links(links: Any, read: _ReadAttributes) -> str:
    told = []
    for link in links:
        item: dict[str, Any] = {
            "trace_id": (link.trace_id or b"").hex(),
            "span_id": (link.span_id or b"").hex(),
        }
        attributes = read(link.attributes)
        if attributes:
            item["attributes"] = attributes
        told.append(item)
    return _TEXT.encode(told).decode()


def _read_attributes(pairs: Any) -> dict[str, Any]:
    attributes = {}
    for pair in pairs:
        value = pair.value
        which = value.WhichOneof("value")
        attributes[pair.key] = getattr(value, which) if which in _PLAIN else _read_nested(value, which)
    return attributes


def _read_nested(value: Any, which: str | None) -> Any:
    if which == "bytes_value":
        return base64.b64encode(value.bytes_value).decode()
    if which == "array_value":
        return [_read_value(item) for item in value.array_value.values]
    if which == "kvlist_value":
        return _read_attributes(value.kvlist_value.values)
    return None


def _read_value(value: Any) -> Any:
    which = value.WhichOneof("value")
    return getattr(value, which) if which in _PLAIN else _read_nested(value, which)
