"""Jaeger's traces, read into span columns."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaeger_writer import read_plainly, to_jaeger, to_microseconds, with_tags

from perflab.testing import random_forest
from perflab.trace.jaeger import JaegerReader
from perflab.trace.jsonfile import read_json
from perflab.trace.otlp import batch_table

TRACE = "0000000000000000000000000000abcd"


def span(span_id: str, **fields: Any) -> dict[str, Any]:
    """Return a span of 5 us; what is given replaces what is usual, None leaves it out."""
    usual = {
        "traceID": "abcd", "spanID": span_id, "operationName": f"op{span_id}", "references": [],
        "startTime": 1_700_000_000_000_000, "duration": 5, "tags": [], "logs": [], "processID": "p1",
    }  # fmt: skip
    return {name: value for name, value in {**usual, **fields}.items() if value is not None}


def read(
    spans: list[dict[str, Any]], processes: Any = None, **trace: Any
) -> tuple[pd.DataFrame, JaegerReader]:
    """Return the table of one trace, and its reader."""
    reader = JaegerReader()
    processes = processes or {"p1": {"serviceName": "shop", "tags": []}, "p2": {"serviceName": "stock"}}
    reader.add_trace(
        json.dumps({"traceID": "abcd", "spans": spans, "processes": processes, **trace}).encode(), "data[0]"
    )
    return batch_table([reader.batch]), reader


def tag(key: str, value: Any, kind: str = "string") -> dict[str, Any]:
    return {"key": key, "type": kind, "value": value}


def child_of(span_id: str, trace: str = "abcd", kind: str = "CHILD_OF") -> dict[str, Any]:
    return {"refType": kind, "traceID": trace, "spanID": span_id}


def test_a_span_by_hand():
    """Every column of one span, with all there can be."""
    tags = [
        tag("span.kind", "server"),
        tag("otel.status_code", "ERROR"),
        tag("http.status_code", 503, "int64"),
        tag("big", "9223372036854775222", "int64"),
        tag("ratio", "0.5", "float64"),
        tag("cached", "true", "bool"),
        tag("blob", "AAAwOQ==", "binary"),
        tag("user_agent.synthetic.type", "test"),
    ]
    logs = [
        {
            "timestamp": 1,
            "fields": [tag("event", "error"), tag("error.kind", "Timeout"), tag("message", "late")],
        }
    ]
    process = {"serviceName": "shop", "tags": [tag("hostname", "h1"), tag("service.instance.id", "i-7")]}
    one = span("2a", references=[child_of("1")], tags=tags, logs=logs, warnings=["clock skew"])
    table, reader = read([one], {"p1": process})
    (row,) = table.astype({"trace_id": "str"}).to_dict("records")
    attributes = json.loads(row.pop("attributes"))
    assert row == {
        "trace_id": TRACE, "span_id": 0x2A, "parent_span_id": 1, "service": "shop", "name": "op2a",
        "kind": "server", "status": "error", "host": "h1", "start_ns": 1_700_000_000_000_000_000,
        "duration_ns": 5000, "scheduled_ns": 0, "shadow": True, "outcome": "", "links": "",
    }  # fmt: skip
    assert attributes == {
        "http.status_code": 503, "big": 9223372036854775222, "ratio": 0.5, "cached": True, "blob": "AAAwOQ==",
        "service.instance.id": "i-7", "jaeger.warnings": ["clock skew"], "exception.type": "Timeout",
        "exception.message": "late",
    }  # fmt: skip
    assert reader.batch.refused == 0


@pytest.mark.parametrize(
    ("tags", "kind", "status"),
    [
        ([tag("error", True, "bool")], "internal", "error"),
        ([tag("error", "true")], "internal", "error"),
        ([tag("error", False, "bool"), tag("http.status_code", 500, "int64")], "internal", "unset"),
        ([tag("error", "it broke")], "internal", "error"),
        ([tag("http.status_code", "404", "string"), tag("span.kind", "client")], "client", "error"),
        ([tag("http.status_code", 404, "int64"), tag("span.kind", "SERVER")], "server", "unset"),
        ([tag("http.response.status_code", 500, "int64"), tag("span.kind", "server")], "server", "error"),
        ([tag("otel.status_code", "OK"), tag("http.status_code", 500, "int64")], "internal", "ok"),
        ([tag("span.kind", "something")], "internal", "unset"),
    ],
)
def test_kind_and_status(tags, kind, status):
    """What tags say of them, in the order OpenTelemetry's translator asks."""
    table, _ = read([span("1", tags=tags)])
    assert (table["kind"].iloc[0], table["status"].iloc[0]) == (kind, status)


@pytest.mark.parametrize(
    ("fields", "parent", "links"),
    [
        ({"references": [child_of("1")]}, 1, []),
        ({"references": None, "parentSpanID": "1"}, 1, []),
        ({"references": None, "parentSpanID": "0000000000000000"}, 0, []),
        ({"references": [child_of("1", "ff"), child_of("2")]}, 2, [("ff", 1, "child_of")]),
        ({"references": [child_of("1", kind="FOLLOWS_FROM")]}, 1, [("abcd", 1, "follows_from")]),
        (
            {"references": [child_of("1", kind="FOLLOWS_FROM"), child_of("2"), child_of("3")]},
            2,
            [("abcd", 1, "follows_from"), ("abcd", 3, "child_of")],
        ),
        ({"references": [child_of("9", "ff")]}, 0, [("ff", 9, "child_of")]),
        ({"references": [child_of("1")], "parentSpanID": "2"}, 2, []),
    ],
)
def test_references(fields, parent, links):
    """The parent is the first CHILD_OF of this trace, or else what it follows from, which stays a link."""
    table, _ = read([span("7", **fields)])
    assert table["parent_span_id"].tolist() == [parent]
    text = table["links"].iloc[0]
    told = [
        (link["trace_id"], int(link["span_id"], 16), link["attributes"]["opentracing.ref_type"])
        for link in (json.loads(text) if text else [])
    ]
    assert told == [(f"{trace:0>32}", of, kind) for trace, of, kind in links]


def test_a_server_that_shares_its_clients_id_gets_one_of_its_own():
    """As Zipkin writes them: the server is the client's child, the children of the id are the server's."""
    kinds = {name: [tag("span.kind", name)] for name in ("client", "server")}
    spans = [
        span("2", tags=kinds["server"], processID="p2", references=[child_of("1")]),
        span("2", tags=kinds["client"], references=[child_of("1")]),
        span("3", processID="p2", references=[child_of("2")]),
        span("1"),
    ]
    table, reader = read(spans)
    assert reader.shared_ids == 1
    server, client, inside, _ = table.to_dict("records")
    assert (client["span_id"], client["parent_span_id"]) == (2, 1)
    assert server["parent_span_id"] == 2
    assert server["span_id"] not in (1, 2, 3)
    assert inside["parent_span_id"] == server["span_id"]
    again, _ = read(spans)
    pd.testing.assert_frame_equal(table, again)


def test_kinds_are_told_from_services_where_no_tag_says_them():
    """A parent elsewhere makes a server span, children elsewhere only make a client span."""
    spans = [
        span("1"),
        span("2", references=[child_of("1")]),
        span("3", references=[child_of("2")], processID="p2"),
        span("4", references=[child_of("1")]),
        span("5", references=[child_of("3")], processID="p2", tags=[tag("span.kind", "producer")]),
    ]
    table, reader = read(spans)
    assert table["kind"].tolist() == ["internal", "client", "server", "internal", "producer"]
    assert reader.inferred_kinds == 2


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"spanID": "xyz"}, "invalid literal"),
        ({"spanID": "0"}, "span id '0' is not up to 16 hex digits other than zero"),
        ({"spanID": None}, "span id None"),
        ({"traceID": "f" * 33}, "trace id"),
        ({"startTime": None}, "startTime is missing"),
        ({"startTime": -5}, "startTime -5 is no time"),
        ({"startTime": 1e30}, "out of range"),
        ({"duration": None}, "duration is missing"),
        ({"duration": "long"}, "could not convert"),
        ({"processID": "p9"}, "there is no process 'p9' among ['p1', 'p2']"),
        ({"operationName": 5}, "Expected `str`, got `int`"),
        ({"tags": [{"value": 1}]}, "missing required field `key`"),
    ],
)
def test_a_span_that_cannot_be_used_is_refused_and_the_rest_is_read(fields, why):
    """With its place and what is wrong."""
    table, reader = read([span("1"), span("2", **fields), span("3")])
    assert table["span_id"].tolist() == [1, 3]
    assert reader.batch.refused == 1
    assert reader.batch.reason.startswith("data[0].spans[1]: ")
    assert why in reader.batch.reason


def test_times_may_be_text_or_fractions_and_durations_negative():
    """Microseconds, to the nanosecond."""
    table, _ = read(
        [span("1", startTime="1700000000000001", duration="7"), span("2", startTime=1.7e15, duration=-3.25)]
    )
    assert table["start_ns"].tolist() == [1_700_000_000_000_001_000, 1_700_000_000_000_000_000]
    assert table["duration_ns"].tolist() == [7000, -3250]


def test_copies_of_spans_inside_references_are_skipped():
    """Jaeger's UI nests them, each with its own references."""
    inside: dict[str, Any] = span("0a")
    for number in range(1, 30):
        inside = span(f"{number:x}", references=[{**child_of("0a"), "span": inside}])
    table, _ = read([inside])
    assert table["parent_span_id"].tolist() == [10]


def test_bare_spans_carry_their_process():
    """As span stores dump them; traces may be mixed."""
    process = {"serviceName": "stock", "tags": [tag("ip", "10.0.0.1")]}
    spans = [
        span("1", process=process, processID=None),
        span("1", traceID="ef", process=process, processID=None),
        span("2", process=process, processID=None, references=[child_of("1")]),
        {"spanID": 5},
    ]
    reader = JaegerReader()
    reader.add_spans([json.dumps(one).encode() for one in spans], "spans")
    table = batch_table([reader.batch])
    assert sorted(zip(table["trace_id"].astype("str").str[-4:], table["span_id"], strict=True)) == [
        ("00ef", 1),
        ("abcd", 1),
        ("abcd", 2),
    ]
    assert set(table["host"]) == {"10.0.0.1"}
    assert reader.batch.reason.startswith("spans[3]: Expected `str")


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), generated=st.booleans())
def test_what_jaeger_answers_is_what_was_traced(tmp_path_factory, seed, generated):
    """Table to JSON and back, against a plain reader and against the table itself."""
    table = with_tags(to_microseconds(random_forest(seed, generated=generated)), seed)
    path = tmp_path_factory.mktemp("jaeger") / "traces.json"
    path.write_text(json.dumps(to_jaeger(table, with_logs=True)))
    found, plain = read_json(path).spans, read_plainly(path)
    for name in found.columns:
        mine, theirs = found[name].tolist(), plain[name].tolist()
        if name == "attributes":
            mine, theirs = [json.loads(text) for text in mine], [json.loads(text) for text in theirs]
        assert mine == theirs, name
    keys = ["trace_id", "span_id", "kind"]
    kept = [*keys, "parent_span_id", "service", "name", "status", "host", "start_ns", "duration_ns", "shadow"]
    both = [one[kept].astype(dict.fromkeys(kept, "str")).sort_values(keys).reset_index(drop=True)
            for one in (found, table)]  # fmt: skip
    pd.testing.assert_frame_equal(*both)
