"""OTLP/JSON requests by hand: the forms the mapping allows, and what it does not."""

import json

import pytest

from perflab.errors import SpanFormatError
from perflab.trace.otlp import JSON, decode_traces

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


def test_json_request_by_hand():
    """The same of JSON: hex ids in either case, integers as text, enumerations as names, null as absent."""
    # Given
    request = _request(
        _span(
            traceId=_TRACE.upper(),
            parentSpanId="",
            kind="SPAN_KIND_SERVER",
            status={"code": "STATUS_CODE_OK"},
            attributes=[
                _pair("n", "intValue", "12"),
                _pair("d", "doubleValue", "NaN"),
                _pair("l", "arrayValue", {"values": [{"stringValue": "a"}, {"boolValue": False}]}),
                _pair("m", "kvlistValue", {"values": [_pair("k", "bytesValue", "AP8=")]}),
                {"key": "nothing"},
            ],
            links=None,
            flags=257,
            whatever={"is": "ignored"},
        ),
        _span(spanId="00000000000000a2", kind=5, status={}, endTimeUnixNano=_T0 + 7, startTimeUnixNano=_T0),
        resource={"service.name": "shop"},
    )
    # When
    table = _decode_json(request)
    # Then
    assert table["trace_id"].tolist() == [_TRACE, _TRACE]
    assert table["span_id"].tolist() == [0xA1, 0xA2]
    assert table["parent_span_id"].tolist() == [0, 0]
    assert table["kind"].tolist() == ["server", "consumer"]
    assert table["status"].tolist() == ["ok", "unset"]
    assert table["duration_ns"].tolist() == [5, 7]
    assert table["service"].tolist() == ["shop", "shop"]
    assert table["shadow"].tolist() == [False, False]
    told = {"n": 12, "d": "NaN", "l": ["a", False], "m": {"k": "AP8="}, "nothing": None}
    assert json.loads(table["attributes"][0]) == told
    assert table["attributes"][1] == ""


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "truncated"),
        (b"{", "truncated"),
        (b"[1]", "Expected `object`, got `array`"),
        (b'{"traceID": 1, "spans": []}', "no 'resourceSpans'; its fields are ['traceID', 'spans']"),
        (json.dumps(_request(_span(traceId="xyz"))).encode(), "spans[0].traceId"),
        (json.dumps(_request(_span(spanId=5))).encode(), "spans[0].spanId"),
        (json.dumps(_request(_span(kind="FAST"))).encode(), "'FAST' is none of SPAN_KIND_UNSPECIFIED"),
        (
            json.dumps(_request(_span(), _span(startTimeUnixNano="soon"))).encode(),
            "spans[1].startTimeUnixNano",
        ),
        (json.dumps(_request(_span(startTimeUnixNano=1.5))).encode(), "1.5 is no integer"),
        (json.dumps(_request(_span(endTimeUnixNano=10**40))).encode(), "endTimeUnixNano"),
        (json.dumps(_request(_span(attributes={}))).encode(), "spans[0].attributes"),
        (
            json.dumps(_request(_span(attributes=[_pair("a", "intValue", True)]))).encode(),
            "True is no integer",
        ),
        (b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"\xff"}]}]}]}', "byte"),
        (b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"\\ud800"}]}]}]}', "surrogate"),
    ],
)
def test_malformed_json_says_where(body, words):
    """What is no OTLP/JSON is refused with the field or the byte."""
    with pytest.raises(SpanFormatError) as caught:
        decode_traces(body, JSON)
    assert words in str(caught.value)
