"""Files of traces in JSON, whatever their form."""

from __future__ import annotations

import gzip
import json

import pandas as pd
import pytest
from jaeger_writer import to_jaeger, to_microseconds

from perflab.errors import SpanFormatError
from perflab.testing import random_forest
from perflab.trace.jsonfile import is_json, read_json
from perflab.trace.store import read_spans, sort_spans, write_spans

OTLP = {
    "resourceSpans": [
        {
            "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]},
            "scopeSpans": [
                {
                    "spans": [
                        {"traceId": "ab" * 16, "spanId": "cd" * 8, "name": "GET /", "kind": 2,
                         "startTimeUnixNano": "1700000000000000000",
                         "endTimeUnixNano": "1700000000000005000"},
                        {"traceId": "ab" * 16, "spanId": "", "name": "GET /"},
                    ]
                }
            ],
        }
    ]
}  # fmt: skip


@pytest.fixture
def table() -> pd.DataFrame:
    """Return some traces without messages, whose kinds could be told from services."""
    return to_microseconds(random_forest(4, traces=6))


def lines(items: list[object]) -> str:
    return "".join(json.dumps(item) + "\n" for item in items)


def test_jaegers_forms_are_one(tmp_path, table):
    """The query's answer, its traces alone, one trace a line, with a mark of byte order, gzipped."""
    answer = to_jaeger(table)
    traces = answer["data"]
    bare = [
        {**span, "process": trace["processes"][span["processID"]]}
        for trace in traces
        for span in trace["spans"]
    ]
    texts = {
        "answer": json.dumps(answer),
        "indented": json.dumps(answer, indent=2),
        "list": json.dumps(traces),
        "lines": lines(traces),
        "spans": json.dumps(bare),
        "span lines": lines(bare),
        "hits": lines([{"_index": "jaeger", "_source": one} for one in bare]),
        "marked": "\ufeff" + json.dumps(answer),
    }
    expected = sort_spans(read_json(_write(tmp_path / "expected.json", texts["answer"])).spans)
    assert len(expected) == len(table)
    for name, text in texts.items():
        found = read_json(_write(tmp_path / f"{name}.json", text))
        assert found.refused == 0, name
        pd.testing.assert_frame_equal(sort_spans(found.spans), expected, obj=name)
    (tmp_path / "packed.gz").write_bytes(gzip.compress(texts["answer"].encode()))
    pd.testing.assert_frame_equal(sort_spans(read_json(tmp_path / "packed.gz").spans), expected)
    # one trace alone
    one = read_json(_write(tmp_path / "one.json", json.dumps(traces[0]))).spans
    assert len(one) == len(traces[0]["spans"])


@pytest.mark.parametrize("text", [json.dumps(OTLP), json.dumps({"result": OTLP}), lines([OTLP, OTLP])])
def test_otlp_is_read_by_its_own_reader(tmp_path, text):
    """A request, Jaeger's newer answer, a request a line as collectors write; refused spans are counted."""
    found = read_json(_write(tmp_path / "otlp.json", text))
    assert set(found.spans["kind"]) == {"server"}
    assert found.counts["spans"] == found.counts["refused"] == text.count("resourceSpans")
    assert "span id" in found.reason


def test_an_empty_answer_has_no_spans(tmp_path):
    """Nothing found is no error."""
    found = read_json(_write(tmp_path / "none.json", '{"data": [], "errors": null}'))
    assert found.counts == {"spans": 0, "traces": 0, "refused": 0, "shared_ids": 0, "inferred_kinds": 0}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"data": [{"traceID": "ab", "spans": [', "this is no JSON"),
        ('{"data": 5}', "data is b'5', neither a trace nor a span"),
        ('{"data": null, "errors": [{"code": 404}]}', "data is b'null', neither a trace nor a span"),
        ('[{"data": [{"a": 1}]}]', "[0].data[0] is JSON with the fields ['a']; expected are Jaeger's"),
        ('{"hello": "world"}', "the file is JSON with the fields ['hello']"),
        ('{"spans": {}}', "the trace: Expected `array`, got `object`"),
        ('{"spans": []}\n{"spans": [}\n', "line 2 is no JSON"),
        ("[1, 2]", "[0] is b'1', neither a trace nor a span"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_what_is_no_traces_is_named(tmp_path, text, why):
    """The file, the place in it, what was found."""
    path = _write(tmp_path / "other.json", text)
    with pytest.raises(SpanFormatError) as raised:
        read_json(path)
    assert str(raised.value).startswith(str(path))
    assert why in str(raised.value)


def test_a_gzip_that_is_cut_short_is_named(tmp_path, table):
    """And a file that is not there."""
    packed = gzip.compress(json.dumps(to_jaeger(table)).encode())
    (tmp_path / "cut.json.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(SpanFormatError, match=r"cut\.json\.gz cannot be read"):
        read_json(tmp_path / "cut.json.gz")
    with pytest.raises(SpanFormatError, match=r"nowhere\.json cannot be read"):
        read_json(tmp_path / "nowhere.json")


def test_read_spans_opens_them(tmp_path, table, caplog):
    """A file, a folder of files; what is refused is warned of."""
    answer = to_jaeger(table)
    path = _write(tmp_path / "traces/a.json", json.dumps(answer))
    expected = sort_spans(read_json(path).spans)
    pd.testing.assert_frame_equal(read_spans(path), expected)
    pd.testing.assert_frame_equal(read_spans(tmp_path / "traces"), expected)
    assert not caplog.records
    del answer["data"][0]["spans"][0]["spanID"]
    assert len(read_spans(_write(path, json.dumps(answer)))) == len(expected) - 1
    assert (
        f"1 of {len(expected)} spans cannot be used; the first is data[0].spans[0]: span id None"
        in caplog.text
    )
    # Parquet in the folder comes before
    write_spans(expected.head(3), tmp_path / "traces/b.parquet")
    assert len(read_spans(tmp_path / "traces")) == 3


def test_what_begins_as_json_does(tmp_path, table):
    """By what is inside, not by the name."""
    assert is_json(_write(tmp_path / "a", "  [1]"))
    assert not is_json(_write(tmp_path / "b", "hello"))
    assert not is_json(_write(tmp_path / "c", ""))
    (tmp_path / "d").write_bytes(gzip.compress(b"{}"))
    assert is_json(tmp_path / "d")
    (tmp_path / "e").write_bytes(b"\x1f\x8bno gzip at all")
    assert not is_json(tmp_path / "e")
    assert not is_json(write_spans(table, tmp_path / "f.json"))


def test_progress_is_told(tmp_path, table):
    """In bytes of the text, up to all of them."""
    path = _write(tmp_path / "a.json", json.dumps(to_jaeger(table)["data"]))
    told: list[tuple[int, int]] = []
    read_json(path, watch=lambda done, total: told.append((done, total)))
    assert len(told) == 6
    assert told == sorted(told)
    assert told[-1][0] >= 0.9 * told[-1][1]


def _write(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path
