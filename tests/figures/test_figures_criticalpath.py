"""What mending each place would buy, as bars."""

from types import SimpleNamespace

import pandas as pd
import pytest

from perflab.analysis.bottleneck import bottlenecks
from perflab.figures import critical_path
from perflab.testing import S, spans


def ranked(rows):
    """Return what `bottlenecks` returns, as far as the figure reads it."""
    columns = ("entity", "gain_ms", "low_ms", "high_ms", "share_ratio", "stands_out")
    return SimpleNamespace(table=pd.DataFrame(rows, columns=columns))


def test_bars_are_gains_with_their_intervals():
    """A gain of 30 ms between 20 and 50 has whiskers of 10 down and 20 up."""
    # When
    figure = critical_path(
        ranked([("stock: SELECT", 30.0, 20.0, 50.0, 0.6, True), ("b: x", 5.0, 4.0, 6.0, 0.1, False)])
    )
    # Then
    out, rest = figure.data
    assert (list(out.x), list(out.error_x.array), list(out.error_x.arrayminus)) == ([30], [20], [10])
    assert list(rest.x) == [5]


def test_what_stands_out_is_hatched_and_said():
    """Colour is not the only sign."""
    # When
    figure = critical_path(
        ranked([("a: x", 30.0, 20.0, 50.0, 0.6, True), ("b: y", 5.0, 4.0, 6.0, 0.1, False)])
    )
    # Then
    assert ["stands out" in annotation.text for annotation in figure.layout.annotations] == [True, False]
    assert [trace.marker.pattern.shape for trace in figure.data] == ["/", ""]


def test_only_the_first_twelve_are_drawn_and_the_rest_counted():
    """Of 20 places 12 are drawn; 8 are said to be left out."""
    # When
    figure = critical_path(ranked([(f"s: {n}", 20.0 - n, 1.0, 30.0, 0.05, False) for n in range(20)]))
    # Then
    assert len(figure.layout.annotations) == 12
    assert "8 smaller ones left out" in figure.layout.meta["description"]


def test_a_missing_interval_is_no_interval():
    """NaN draws a bar without whiskers."""
    # When
    figure = critical_path(ranked([("a: x", 30.0, float("nan"), float("nan"), 0.6, False)]))
    # Then
    assert list(figure.data[0].error_x.array) == [0]


def test_it_takes_what_bottlenecks_returns():
    """On real results: the query of 7 ms in 10 is the first bar."""

    # Given
    def request(at):
        query = S("stock", "SELECT <stock>", at + 2, at + 9, kind="client")
        return S("stock", "GET /stock", at, at + 10, kind="server", children=[query])

    found = bottlenecks(spans([request(20 * place) for place in range(40)]))
    # When
    figure = critical_path(found)
    # Then
    assert figure.data[0].x[0] == pytest.approx(7.0)
    assert "stock: SELECT &lt;stock&gt;" in figure.layout.annotations[0].text


def test_nothing_to_rank_is_said_in_words():
    """Too few traces: the figure says so instead of being blank."""
    assert "Nothing to rank" in critical_path(bottlenecks(spans([]))).layout.meta["description"]
