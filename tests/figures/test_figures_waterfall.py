"""One trace as a waterfall."""

import numpy as np
import pandas as pd
import pytest

from perflab.errors import AnalysisError, SchemaError
from perflab.figures import waterfall
from perflab.figures.waterfall import MAX_ROWS
from perflab.testing import S, spans, trace_id


def order():
    """Return 100 ms of gateway, of which 40 are an SQL call that fails."""
    query = S("stock", "SELECT stock", 30, 70, kind="client", status="error")
    server = S("stock", "POST /reserve", 20, 80, kind="server", children=[query])
    call = S("gateway", "POST stock", 10, 90, kind="client", children=[server])
    return S("gateway", "POST /orders", 0, 100, kind="server", children=[call])


def bars(figure, name):
    """Return a bar trace's ``(start, length)`` pairs, in order."""
    (trace,) = [trace for trace in figure.data if trace.name == name]
    return list(zip(trace.base, trace.x, strict=True))


def labels(figure):
    return [annotation.text for annotation in figure.layout.annotations]


def test_every_span_has_a_row_in_the_order_of_calls():
    """Four spans, callers first, each deeper by one indentation; bars in ms since the trace began."""
    # When
    figure = waterfall(spans([order()]), trace_id(1))
    # Then
    assert [text.split("</b>")[1].split("  ")[0] for text in labels(figure)] == [
        " POST /orders", " POST stock", " POST /reserve", " SELECT stock",
    ]  # fmt: skip
    assert [annotation.xshift for annotation in figure.layout.annotations] == [0, 10, 20, 30]
    assert bars(figure, "gateway") == [(0, 100), (10, 80)]
    assert bars(figure, "stock") == [(20, 60), (30, 40)]


def test_the_critical_path_is_drawn_under_the_spans_that_own_it():
    """By hand: gateway 0-10 and 90-100, edge 10-20 and 80-90, stock 20-30 and 70-80, query 30-70."""
    # When
    figure = waterfall(spans([order()]), trace_id(1))
    # Then
    assert sorted(bars(figure, "critical path")) == [
        (0, 10), (10, 10), (20, 10), (30, 40), (70, 10), (80, 10), (90, 10),
    ]  # fmt: skip


def test_an_error_is_hatched_and_said():
    """Only the failed query is hatched, and its label says so in words."""
    # When
    figure = waterfall(spans([order()]), trace_id(1))
    # Then
    (stock,) = [trace for trace in figure.data if trace.name == "stock"]
    assert list(stock.marker.pattern.shape) == ["", "x"]
    assert ["error" in text for text in labels(figure)] == [False, False, False, True]
    assert "1 of them in error" in figure.layout.meta["description"]


def test_spans_without_times_keep_their_rows():
    """A start of 0 and a negative duration are said to be missing and draw no bar."""
    # Given
    table = spans([order()])
    table.loc[2, "start_ns"] = 0
    table.loc[3, "duration_ns"] = -5
    # When
    figure = waterfall(table, trace_id(1))
    # Then
    assert sum("time missing" in text for text in labels(figure)) == 2
    assert len(labels(figure)) == 4
    assert not [trace for trace in figure.data if trace.name == "stock"]


def test_a_trace_of_nothing_but_missing_times_is_drawn():
    """No known time at all is no reason to fail."""
    # Given
    table = spans([S("a", "x", 0, 1)]).assign(start_ns=np.int64(0))
    # When / Then
    assert len(labels(waterfall(table, trace_id(1)))) == 1


def test_an_orphan_is_shown_and_said_to_be_one():
    """A span whose caller never arrived stands on its own."""
    # Given
    lost = S("mail", "send", 40, 50, parent_span_id=999, trace=1)
    # When
    figure = waterfall(spans([S("a", "x", 0, 100, trace=1), lost]), trace_id(1))
    # Then
    assert ["its caller's span is missing" in text for text in labels(figure)] == [False, True]


def test_no_more_than_two_hundred_rows_are_drawn_and_the_rest_is_counted():
    """Of 501 spans those with their callers that matter most are kept; 301 are said to be left out."""
    # Given
    children = [S("stock", f"SELECT {n}", n, n + 0.1 + n / 1000, kind="client") for n in range(500)]
    # When
    figure = waterfall(spans([S("stock", "GET /", 0, 600, kind="server", children=children)]), trace_id(1))
    # Then
    assert len(labels(figure)) == MAX_ROWS
    assert "301 shorter spans are not drawn" in figure.layout.meta["description"]
    assert "GET /" in labels(figure)[0]
    assert sum("SELECT 499<" in text or "SELECT 499 " in text for text in labels(figure)) == 1


def test_a_very_deep_trace_is_drawn():
    """A chain of 3,000 calls: no recursion, the top 200 rows."""
    # Given
    depth = 3000
    base = spans([S("a", "x", 0, 100)])
    table = pd.concat([base] * depth, ignore_index=True)
    table["trace_id"] = table["trace_id"].astype("category")
    table["span_id"] = np.arange(1, depth + 1, dtype=np.uint64)
    table["parent_span_id"] = np.arange(depth, dtype=np.uint64)
    # When
    figure = waterfall(table, trace_id(1))
    # Then
    assert len(labels(figure)) == MAX_ROWS


def test_a_service_has_the_same_colour_in_every_trace_of_a_table():
    """Colours come from all services of the table, not from those of one trace."""
    # Given
    table = spans([S("a", "x", 0, 9), S("b", "y", 0, 9, children=[S("c", "z", 1, 2)])])
    # When
    first, second = waterfall(table, trace_id(1)), waterfall(table, trace_id(2))
    # Then
    colours = [
        trace.marker.line.color for figure in (first, second) for trace in figure.data if trace.name in "abc"
    ]
    assert len(set(colours)) == 3


def test_names_from_a_trace_stay_text():
    """Markup in a name reaches neither labels, legend nor hover box."""
    # Given
    hostile = "<a href='javascript:alert(1)'>x</a>%{y}$m$"
    # When
    figure = waterfall(spans([S(hostile, hostile, 0, 10)]), trace_id(1))
    # Then
    text = figure.to_json()
    assert "<a " not in text.replace("\\u003c", "<")
    assert "%{y}" not in text


def test_an_unknown_trace_is_refused_with_one_that_is_there():
    """The message names a trace of the table."""
    with pytest.raises(AnalysisError, match=trace_id(1)):
        waterfall(spans([order()]), "f" * 32)


def test_what_is_no_span_table_is_refused():
    """A table without the columns is refused at the door."""
    with pytest.raises(SchemaError):
        waterfall(pd.DataFrame({"x": [1]}), "f" * 32)
