"""Latency over time, as percentiles, and against the offered rate."""

import math

import pytest

from perflab.analysis.latency import latency
from perflab.figures import latency_over_time, percentiles, rates
from perflab.testing import S, spans


def request(at_ms, lasting_ms, endpoint="pay", outcome="answered"):
    """Return one request of the load engine."""
    return S(
        "perflab", endpoint, at_ms, at_ms + lasting_ms, kind="client", outcome=outcome, scheduled_ms=at_ms
    )


def steady(seconds=10, per_s=20, endpoint="pay"):
    """Return requests of 10 ms in the first second, 20 ms in the second, and so on."""
    gap = 1000 / per_s
    return [
        request(second * 1000 + place * gap, 10 * (second + 1), endpoint)
        for second in range(seconds)
        for place in range(per_s)
    ]


def named(figure, name):
    """Return the trace of that name."""
    (found,) = [trace for trace in figure.data if trace.name == name]
    return found


def test_each_second_has_its_percentiles_and_its_rate():
    """By hand: second k takes 10 (k + 1) ms, at 20 per second."""
    # When
    figure = latency_over_time(latency(spans(steady())))
    # Then
    assert list(named(figure, "p50").y) == pytest.approx([10 * (second + 1) for second in range(10)])
    assert list(named(figure, "offered").y) == [20] * 10


def test_a_second_without_requests_is_a_gap_and_not_a_line():
    """Requests in the seconds 0 and 3: the two between are empty."""
    # When
    figure = latency_over_time(latency(spans([request(0, 5), request(3000, 5)])))
    # Then
    assert list(named(figure, "p50").x) == [0, 1, 2, 3]
    assert [math.isnan(value) for value in named(figure, "p50").y] == [False, True, True, False]


def test_lines_are_told_by_dash_and_word():
    """Every line differs in dash, and its name stands at its end, none over another."""
    # When
    figure = rates(latency(spans(steady(20))))
    # Then
    lines = [named(figure, name) for name in ("p50", "p95", "p99")]
    assert len({line.line.dash for line in lines}) == 3
    assert sorted(annotation.text for annotation in figure.layout.annotations) == ["p50", "p95", "p99"]


def test_percentiles_stand_on_an_axis_of_nines():
    """p90 is one, p99 two, p99.9 three nines from the left."""
    # When
    figure = percentiles(latency(spans(steady(50))))
    # Then
    assert list(figure.data[0].x) == pytest.approx([math.log10(2), 1, 1 + math.log10(2), 2, 3])


def test_a_percentile_among_unanswered_requests_is_an_open_triangle_and_said():
    """Of 100 requests 5 time out: p99 is a lower bound, p50 is not."""
    # Given
    table = spans(
        [*(request(n, 10) for n in range(95)), *(request(n, 1000, outcome="timeout") for n in range(5))]
    )
    # When
    trace = percentiles(latency(table)).data[0]
    # Then
    assert trace.marker.symbol[0] == "circle"
    assert trace.marker.symbol[3] == "triangle-up-open"
    assert "≥" in trace.hovertext[3]
    assert "≥" not in trace.hovertext[0]


def test_percentiles_of_too_few_requests_are_not_drawn():
    """Of 40 requests p50, p90 and p95 say something; p99 would only be the slowest of them."""
    # When
    figure = percentiles(latency(spans([request(n, 10 + n) for n in range(40)])))
    # Then
    assert list(figure.data[0].x) == pytest.approx([math.log10(2), 1, 1 + math.log10(2)])
    assert "too few requests" in figure.layout.meta["description"]


def test_endpoints_beyond_six_are_left_out_and_counted():
    """Of nine endpoints six are drawn."""
    # When
    figure = percentiles(latency(spans([request(n, 5, f"endpoint {n % 9}") for n in range(90)])))
    # Then
    assert len(figure.data) == 6
    assert "3 endpoints are left out" in figure.layout.meta["description"]


def test_widely_spread_latency_gets_a_log_axis():
    """From 10 ms to 10 s needs one; from 10 to 20 ms begins at zero."""
    # Given
    spread = [request(n * 10, 10) for n in range(100)] + [request(1000 + n * 10, 10_000) for n in range(100)]
    # When / Then
    assert latency_over_time(latency(spans(spread))).layout.yaxis.type == "log"
    assert latency_over_time(latency(spans(steady(2)))).layout.yaxis.rangemode == "tozero"


def test_the_real_users_can_be_drawn_with_them():
    """Their p99 is a line of its own, named as theirs."""
    # Given
    found = latency(spans(steady(3)))
    # When
    figure = latency_over_time(found, real_users=found.over_time[["at_s", "p99_ms"]])
    # Then
    assert list(named(figure, "real users p99").y) == pytest.approx([10, 20, 30])


@pytest.mark.parametrize("draw", [latency_over_time, percentiles, rates])
def test_no_request_is_said_in_words(draw):
    """Without requests the figures explain themselves."""
    assert "no request was sent" in draw(latency(spans([]))).layout.meta["description"]


def test_names_of_endpoints_stay_text():
    """An endpoint called like markup is shown as it is called."""
    # When
    figure = percentiles(latency(spans([request(n, 5, "<a href='x'>%{y}</a>") for n in range(10)])))
    # Then
    assert "<a " not in figure.to_json().replace("\\u003c", "<")
