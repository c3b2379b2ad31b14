"""The bottleneck part by part: the same as with all spans at hand."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from perflab.analysis import streamed
from perflab.analysis.bottleneck import TOO_FEW, bottlenecks
from perflab.analysis.histogram import MAX_RELATIVE_ERROR
from perflab.analysis.streamed import TraceIds, stream_bottlenecks
from perflab.testing import S, random_forest, spans
from perflab.trace.schema import concat_spans
from perflab.trace.store import read_spans, write_spans

EXACT = [
    *("entity", "kind", "service", "name", "caller", "callee", "calls", "exclusive_ns", "mean_ms"),
    *("share_ratio", "covered_ns", "requests", "exemplar_trace_ids", "entry", "rank", "gain_ms"),
    *("calls_per_request", "pattern", "advice"),
]
PERCENTILES = ["p50_ms", "p95_ms", "p99_ms"]


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have hundreds of spans read at a time, not hundreds of thousands."""
    monkeypatch.setattr(streamed, "BATCH_SPANS", 300)


def same(one: pd.DataFrame, other: pd.DataFrame) -> None:
    """Hold two rankings against each other: sums exactly, percentiles to the width of a bucket."""
    assert list(one.columns) == list(other.columns)
    pd.testing.assert_frame_equal(one[EXACT], other[EXACT], check_exact=True)
    for name in PERCENTILES:
        np.testing.assert_allclose(one[name], other[name], rtol=1.01 * MAX_RELATIVE_ERROR, atol=1e-6)


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize(("seed", "files"), [(1, 1), (2, 3)])
@pytest.mark.parametrize("generated", [False, True])
def test_sums_are_those_of_all_spans_at_once(tmp_path, seed, files, generated):
    """Over one file and over several, through which each trace is spread."""
    table = random_forest(seed, traces=300, generated=generated)
    place = np.random.default_rng(seed).integers(0, files, len(table))
    for number in range(files):
        part = table[place == number]
        write_spans(part, tmp_path / f"{number}.parquet", row_group_spans=100)
    whole = bottlenecks(read_spans(tmp_path))
    found = stream_bottlenecks(tmp_path)
    same(found.table, whole.table)
    same(found.by_entry, whole.by_entry)
    assert found.counts == whole.counts
    assert (found.answer, found.refused) == (whole.answer, whole.refused)
    assert (found.first or {}).get("entity") == (whole.first or {}).get("entity")


@pytest.mark.usefixtures("small_batches")
def test_a_file_that_is_there_twice_changes_nothing(tmp_path):
    """Its spans are counted as duplicates."""
    table = random_forest(3, traces=100)
    once = stream_bottlenecks(write_spans(table, tmp_path / "once/a.parquet", row_group_spans=100))
    for name in ("a", "b"):
        write_spans(table, tmp_path / f"twice/{name}.parquet", row_group_spans=100)
    twice = stream_bottlenecks(tmp_path / "twice")
    pd.testing.assert_frame_equal(twice.table, once.table, check_exact=True)
    assert twice.counts == {**once.counts, "duplicates": len(table)}


@pytest.mark.usefixtures("small_batches")
def test_marked_traces_alone_are_taken_wherever_they_lie(tmp_path):
    """A batch without marked traces gives nothing if there are some elsewhere."""
    real = random_forest(1, traces=100)
    marked = random_forest(2, traces=100, generated=True)
    names = [f"f{number:031x}" for number in range(len(marked["trace_id"].cat.categories))]
    marked["trace_id"] = marked["trace_id"].cat.rename_categories(names)
    write_spans(concat_spans([real, marked]), tmp_path / "spans.parquet", row_group_spans=100)
    whole, found = bottlenecks(read_spans(tmp_path)), stream_bottlenecks(tmp_path)
    assert found.counts["real_traces_left_out"] == 100
    assert (found.counts, found.refused) == (whole.counts, whole.refused)
    same(found.table, whole.table)


@pytest.mark.usefixtures("small_batches")
def test_work_that_follows_from_a_trace_in_another_batch_is_nobodys_request(tmp_path):
    """Links are looked up among all traces, not only those at hand."""
    # Given roots that follow from the first trace of the table
    orders = [
        S("shop", "GET /", 10 * place, 10 * place + 5, kind="server", span_id=1) for place in range(400)
    ]
    table = spans(orders)
    first = str(table["trace_id"].astype("str").min())
    link = json.dumps([{"trace_id": first, "span_id": "0000000000000001"}])
    late = spans([S("mailer", "send", 10 * place, 10 * place + 100, kind="internal") for place in range(400)])
    late = late.assign(
        trace_id=pd.Categorical([f"f{number:031x}" for number in range(400)]),
        links=pd.array([link] * 400, "str"),
    )
    write_spans(concat_spans([table, late]), tmp_path / "spans.parquet", row_group_spans=50)
    # When they are analysed part by part
    whole, found = bottlenecks(read_spans(tmp_path)), stream_bottlenecks(tmp_path)
    # Then their time is nobody's
    assert set(found.table["service"]) == {"shop"}
    assert found.counts == whole.counts
    assert found.counts["requests"] == 400


@pytest.mark.usefixtures("small_batches")
def test_clocks_are_set_by_the_sample(tmp_path, monkeypatch):
    """The offset of two hosts is one number for all batches, and what is a sample is said to be one."""
    monkeypatch.setattr(streamed, "SAMPLED_SPANS", 300)
    requests = []
    for place in range(500):
        at = 100 * place
        answer = S("stock", "GET /", at + 515, at + 555, kind="server", host="b")
        call = S("shop", "GET stock", at + 10, at + 60, kind="client", host="a", children=[answer])
        requests.append(S("shop", "GET /", at, at + 70, kind="server", host="a", children=[call]))
    write_spans(spans(requests), tmp_path / "spans.parquet", row_group_spans=90)
    found = stream_bottlenecks(tmp_path)
    assert found.counts["shifted"] == 500
    assert dict(zip(found.table["entity"], found.table["mean_ms"], strict=True)) == {
        "stock: GET /": 40.0,
        "shop: GET /": 20.0,
        "shop -> stock": 10.0,
    }
    assert found.refused == (
        "patterns and clock offsets are told from a sample of 240 of 1,500 spans; sums are over all of them",
    )


def test_an_interval_holds_what_a_busy_hour_does(tmp_path):
    """Blocks of time are drawn: a place that is slow in one stretch of time has a wide interval."""
    steady = [S("shop", "GET /", 100 * place, 100 * place + 20, kind="server") for place in range(2000)]
    burst = [
        S("shop", "GET /", 100 * place, 100 * place + (80 if place < 500 else 0), kind="server")
        for place in range(2000)
    ]
    widths = []
    for name, table in (("steady", steady), ("burst", burst)):
        row = stream_bottlenecks(write_spans(spans(table), tmp_path / f"{name}.parquet")).table.iloc[0]
        assert row["gain_ms"] == 20.0
        assert row["low_ms"] <= 20.0 <= row["high_ms"]
        widths.append(row["high_ms"] - row["low_ms"])
    assert widths[0] < 1e-6
    assert widths[1] > 5.0


@pytest.mark.parametrize("traces", [0, 5])
def test_too_few_requests_are_said_to_be(tmp_path, traces):
    """As with all spans at hand: no ranking, and why."""
    table = random_forest(1, traces=5)
    path = write_spans(table if traces else table.head(0), tmp_path / "spans.parquet")
    found = stream_bottlenecks(path)
    assert (found.answer, len(found.table)) == (TOO_FEW, 0)
    assert found.sentence == f"Not enough traces: {traces} answered requests, 30 are needed to rank."
    assert found.counts["requests"] == traces


@pytest.mark.usefixtures("small_batches")
def test_progress_is_told(tmp_path):
    """How many spans are done, up to all of them."""
    path = write_spans(random_forest(1, traces=200), tmp_path / "spans.parquet", row_group_spans=100)
    told = []
    stream_bottlenecks(path, watch=lambda done, total: told.append((done, total)))
    total = len(read_spans(path))
    assert told[-1] == (total, total)
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert len(told) > 3


def test_trace_ids_are_known_again():
    """Whatever they look like."""
    texts = [f"{7919 * number:032x}" for number in range(1000)] + ["not hex", "short"]
    ids = TraceIds([pd.Index(texts[:500]), pd.Index(texts[500:])])
    assert all(text in ids for text in texts)
    assert f"{7919 * 1000:032x}" not in ids
    assert "else" not in ids
    assert texts[0] not in TraceIds([])
