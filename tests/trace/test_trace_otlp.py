"""OTLP requests by hand, at random and broken: the table they give or the error that says where."""

import base64
import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from perflab.errors import SpanFormatError
from perflab.trace.otlp import JSON, PROTOBUF, batch_table, decode_batch, decode_traces
from perflab.trace.schema import check_spans

_TRACE = "5b8efff798038103d269b633813fc60c"
_T0 = 1_700_000_000_000_000_000


def _span(**fields):
    return {
        "traceId": _TRACE,
        "spanId": "00000000000000a1",
        "name": "GET /",
        "startTimeUnixNano": str(_T0),
        "endTimeUnixNano": str(_T0 + 5),
        **fields,
    }


def _request(*spans, resource=None):
    attributes = [{"key": key, "value": {"stringValue": text}} for key, text in (resource or {}).items()]
    return {
        "resourceSpans": [{"resource": {"attributes": attributes}, "scopeSpans": [{"spans": list(spans)}]}]
    }


def _decode_json(request):
    return decode_traces(json.dumps(request).encode(), JSON)


def _pair(key, kind, value):
    return {"key": key, "value": {kind: value}}


def test_protobuf_request_by_hand():
    """Ids, times, resource, kind, status, mark, links and attributes of a protobuf request."""
    # Given
    request = ExportTraceServiceRequest()
    part = request.resource_spans.add()
    for key, text in {"service.name": "stock", "host.name": "node-1", "service.instance.id": "i7"}.items():
        part.resource.attributes.add(key=key).value.string_value = text
    span = part.scope_spans.add().spans.add(
        trace_id=bytes.fromhex(_TRACE),
        span_id=b"\xff" * 8,
        parent_span_id=(5).to_bytes(8, "big"),
        name="SELECT stock",
        kind=3,
        start_time_unix_nano=_T0,
        end_time_unix_nano=_T0 + 250,
    )
    span.status.code = 2
    span.status.message = "deadlock"
    span.attributes.add(key="z").value.int_value = -(2**63)
    span.attributes.add(key="user_agent.synthetic.type").value.string_value = "test"
    span.attributes.add(key="list").value.array_value.values.add().bool_value = True
    span.attributes.add(key="raw").value.bytes_value = b"\0\xff"
    span.attributes.add(key="map").value.kvlist_value.values.add(key="k").value.double_value = 0.5
    span.attributes.add(key="nothing")
    event = span.events.add(name="exception")
    event.attributes.add(key="exception.type").value.string_value = "DeadlockDetected"
    span.links.add(trace_id=b"\1" * 16, span_id=b"\2" * 8).attributes.add(key="a").value.int_value = 1
    # When
    table = decode_traces(request.SerializeToString(), PROTOBUF)
    # Then
    row = check_spans(table).iloc[0]
    assert len(table) == 1
    assert (row.trace_id, row.span_id, row.parent_span_id) == (_TRACE, 2**64 - 1, 5)
    assert (row.service, row.host, row["name"]) == ("stock", "node-1", "SELECT stock")
    assert (row.kind, row.status) == ("client", "error")
    assert (row.start_ns, row.duration_ns, row.scheduled_ns) == (_T0, 250, 0)
    assert (row.shadow, row.outcome) == (True, "")
    assert json.loads(row.links) == [{"trace_id": "01" * 16, "span_id": "02" * 8, "attributes": {"a": 1}}]
    assert json.loads(row.attributes) == {
        "z": -(2**63),
        "list": [True],
        "raw": base64.b64encode(b"\0\xff").decode(),
        "map": {"k": 0.5},
        "nothing": None,
        "exception.type": "DeadlockDetected",
        "otel.status_description": "deadlock",
        "service.instance.id": "i7",
    }
    assert list(json.loads(row.attributes)) == sorted(json.loads(row.attributes))


_NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_VALUES = st.one_of(
    st.builds(lambda text: ("stringValue", text), _NAMES),
    st.builds(lambda number: ("intValue", str(number)), st.integers(-(2**63), 2**63 - 1)),
    st.builds(lambda flag: ("boolValue", flag), st.booleans()),
    st.builds(lambda number: ("doubleValue", number), st.floats(allow_nan=False, allow_infinity=False)),
)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 2**128 - 1),
            st.integers(1, 2**64 - 1),
            st.integers(0, 2**64 - 1),
            _NAMES,
            st.integers(0, 7),
            st.integers(0, 4),
            st.integers(1, 2**63 - 1),
            st.integers(1, 2**63 - 1),
            st.dictionaries(_NAMES, _VALUES, max_size=4),
        ),
        max_size=5,
    ),
    _NAMES,
)
def test_both_encodings_give_the_same_table(rows, service):
    """Whatever spans there are, protobuf and JSON of them decode to the same table."""
    # Given
    request = ExportTraceServiceRequest()
    part = request.resource_spans.add()
    part.resource.attributes.add(key="service.name").value.string_value = service
    told = []
    for trace, span_id, parent, name, kind, status, start, end, attributes in rows:
        ids = (trace.to_bytes(16, "big"), span_id.to_bytes(8, "big"), parent.to_bytes(8, "big"))
        span = (part.scope_spans[0] if part.scope_spans else part.scope_spans.add()).spans.add(
            trace_id=ids[0], span_id=ids[1], parent_span_id=ids[2], name=name, kind=kind
        )
        span.start_time_unix_nano, span.end_time_unix_nano, span.status.code = start, end, status
        for key, (field, value) in attributes.items():
            pair = span.attributes.add(key=key)
            field_name = field.replace("Value", "_value")
            setattr(pair.value, field_name, int(value) if field == "intValue" else value)
        told.append(
            {
                **dict(zip(("traceId", "spanId", "parentSpanId"), (item.hex() for item in ids), strict=True)),
                "name": name,
                "kind": kind,
                "status": {"code": status},
                "startTimeUnixNano": str(start),
                "endTimeUnixNano": str(end),
                "attributes": [_pair(key, *value) for key, value in attributes.items()],
            }
        )
    # When
    one = decode_batch(request.SerializeToString(), PROTOBUF)
    other = decode_batch(json.dumps(_request(*told, resource={"service.name": service})).encode(), JSON)
    # Then
    assert one == other
    assert len(batch_table([one])) == len(rows)
    assert set(one.columns["service"]) <= {service or "unknown_service"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"spanId": "0000000000000000"}, "span id '0000000000000000' is not 8 bytes other than zero"),
        ({"spanId": "a1"}, "span id 'a1' is not 8 bytes"),
        ({"spanId": None}, "span id 'missing'"),
        ({"traceId": "00" * 16}, "trace id '00000000000000000000000000000000' is not 16 bytes"),
        ({"traceId": "ab" * 8}, "trace id 'abababababababab' is not 16 bytes"),
        ({"parentSpanId": "abcd"}, "parent span id 'abcd' is not 8 bytes"),
        ({"endTimeUnixNano": "0"}, "end 0 is no time"),
        ({"startTimeUnixNano": str(2**63)}, "start 9223372036854775808"),
    ],
)
def test_unusable_spans_are_counted_or_refused(fields, words):
    """A span without usable id or time is left out and counted by one function, refused by the other."""
    # Given
    body = json.dumps(_request(_span(), _span(**fields), _span(**fields), resource={})).encode()
    # When
    batch = decode_batch(body, JSON)
    # Then
    assert (len(batch), batch.refused) == (1, 2)
    assert words in batch.reason
    assert "resourceSpans[0].scopeSpans[0].spans[1]" in batch.reason
    with pytest.raises(
        SpanFormatError, match="2 of 3 spans have no usable id or time; the first is resource"
    ):
        decode_traces(body, JSON)


def test_malformed_protobuf_and_other_types():
    """Bytes that are no request, and types that are not OTLP's, are refused."""
    with pytest.raises(SpanFormatError, match="OTLP/protobuf body of 3 bytes, beginning 0a ff 01"):
        decode_traces(b"\x0a\xff\x01", PROTOBUF)
    with pytest.raises(SpanFormatError, match="not as 'text/plain'"):
        decode_traces(b"", "text/plain")
    assert len(decode_traces(b"", PROTOBUF)) == 0
    assert len(decode_traces(b"{}", "Application/JSON; charset=utf-8")) == 0
    assert len(decode_traces(b'{"resourceSpans": null}', JSON)) == 0


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60), st.sampled_from([PROTOBUF, JSON]))
def test_any_bytes_give_a_table_or_our_error(body, content_type):
    """No bytes make the decoder fail in another way."""
    try:
        check_spans(decode_traces(body, content_type))
    except SpanFormatError as error:
        assert str(error)  # noqa: PT017 - both outcomes are right


@pytest.mark.parametrize("depth", [20, 100, 150, 200, 240, 280, 20_000])
def test_nesting_without_end_is_refused(depth):
    """A value nested ever deeper is a table or, from some depth on, an error; never a crash."""
    # Given
    nested = '{"arrayValue":{"values":[' * depth + "]}}" * depth
    text = '{"resourceSpans":[{"resource":{"attributes":[{"key":"a","value":' + nested + "}]}}]}"
    layer = b""
    for tag in [*[0x0A, 0x2A] * min(depth, 2000), 0x12, 0x0A, 0x0A, 0x0A]:
        size, length = len(layer), b""
        while size > 127:
            length, size = length + bytes([size & 127 | 128]), size >> 7
        layer = bytes([tag]) + length + bytes([size]) + layer
    # Then
    for body, content_type in ((text.encode(), JSON), (layer, PROTOBUF)):
        if depth < 40:
            assert len(decode_traces(body, content_type)) == 0
        elif depth > 1000:
            with pytest.raises(SpanFormatError):
                decode_traces(body, content_type)
        else:
            with contextlib.suppress(SpanFormatError):
                decode_traces(body, content_type)
