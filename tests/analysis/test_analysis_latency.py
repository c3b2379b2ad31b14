"""Latency from due time, censored percentiles, steps of rate, errors: all by hand."""

from __future__ import annotations

import pytest

from perflab.analysis.latency import latency
from perflab.testing import S, spans
from perflab.trace.schema import empty_spans


def asked(
    due: float, took: float, outcome: str = "answered", *, sent: float | None = None, **extra: object
) -> S:
    """Return a generated request that was due, sent (when due unless told) and done ``took`` ms later."""
    begin = due if sent is None else sent
    extra = {"shadow": True, **extra}
    return S(
        "perflab",
        extra.pop("name", "pay"),
        begin,
        begin + took,
        "client",
        outcome=outcome,
        scheduled_ms=due,
        **extra,
    )


class TestLatency:
    def test_it_runs_from_when_a_request_was_due(self):
        """A generator that was 30 ms late does not hide them."""
        # Given one request due at 0, sent at 30, answered at 50; one sent 1 ms late, which is in time
        found = latency(spans([asked(0, 20, sent=30), asked(100, 5, sent=101)]))
        # Then
        assert found.table["max_ms"].tolist() == [50.0]
        assert found.table["late"].tolist() == [1]

    def test_unanswered_requests_stay_in_every_percentile(self):
        """Two of a hundred never answered: p99 is among them and only a lower bound."""
        rows = [asked(place, place) for place in range(1, 99)]
        rows += [asked(1, 1000, "timeout"), asked(1, 10, "reset")]
        row = latency(spans(rows)).table.iloc[0]
        # p50 is the 50th of 100, p95 the 95th; the 99th is the reset one: no better than the slowest answer
        assert (row["n"], row["n_censored"], row["p50_ms"], row["p95_ms"]) == (100, 2, 50.0, 95.0)
        assert (row["p99_ms"], row["p99_censored"], row["p95_censored"]) == (98.0, True, False)
        assert (row["max_ms"], row["max_censored"]) == (1000.0, True)

    def test_a_missed_request_is_one_of_them(self):
        """Never sent, but due: it waited until it was given up."""
        found = latency(spans([asked(0, 10), asked(0, 0, "missed", sent=5000)]))
        row = found.table.iloc[0]
        assert (row["max_ms"], row["max_censored"], row["missed"], row["late"]) == (5000.0, True, 1, 0)
        assert found.counts["unanswered"] == 1

    def test_a_failed_check_was_answered(self):
        """It is an error with a latency."""
        row = latency(spans([asked(0, 10), asked(0, 30, "check_failed")])).table.iloc[0]
        assert (row["max_ms"], row["max_censored"], row["errors"], row["error_ratio"]) == (
            30.0,
            False,
            1,
            0.5,
        )

    def test_endpoints_apart_and_over_all(self):
        """Most requests first; the pooled row stands apart."""
        rows = [asked(0, 10, name="buy"), asked(1, 20), asked(2, 30)]
        found = latency(spans(rows))
        assert found.table[["endpoint", "n", "p50_ms"]].values.tolist() == [
            ["pay", 2, 20.0],
            ["buy", 1, 10.0],
        ]
        assert found.overall[["endpoint", "n", "p50_ms"]].values.tolist() == [["all", 3, 20.0]]

    def test_without_generated_requests_it_is_the_roots(self):
        """Their latency is their duration; errors go by status."""
        inside = S("b", "GET /x", 1, 5, kind="server")
        roots = [
            S("a", "GET /", 0, 40, "server", children=[inside]),
            S("a", "GET /", 0, 10, "server", status="error"),
        ]
        found = latency(spans(roots))
        assert not found.is_generated
        assert found.table[["endpoint", "n", "max_ms", "errors"]].values.tolist() == [
            ["a: GET /", 2, 40.0, 1]
        ]

    def test_marked_requests_only_where_there_are_any(self):
        """Marked and real traffic are never pooled."""
        found = latency(spans([asked(0, 10), asked(0, 99, shadow=False)]))
        assert (found.counts["requests"], found.counts["real_traces_left_out"]) == (1, 1)

    def test_nothing_at_all(self):
        """Empty tables with their columns, no exception."""
        found = latency(empty_spans())
        assert [
            len(table) for table in (found.table, found.overall, found.over_time, found.by_rate, found.errors)
        ] == ([0] * 5)
        assert "p99_censored" in found.table
        assert "no requests" in repr(found)

    def test_it_shows_itself_escaped(self):
        """Names come from strangers."""
        assert "<script>" not in latency(spans([asked(0, 1, name="<script>")]))._repr_html_()


class TestSteps:
    def test_a_ramp_is_told_step_by_step(self):
        """Eighths of the run: offered is what was due, achieved the answers that came meanwhile."""
        # Given 8 s; in second k there are 20 (k + 1) requests, taking 5 ms, in the last one 2 s
        rows = []
        for second in range(8):
            number = 20 * (second + 1)
            for place in range(number):
                due = 1000 * second + 1000 * place / number
                rows.append(asked(due, 2000 if second == 7 else 5))
        rows.append(asked(7999.999999, 1, "missed", sent=8100))
        # When
        steps = latency(spans(rows)).by_rate
        # Then
        assert steps["offered_per_s"].tolist() == pytest.approx([20, 40, 60, 80, 100, 120, 140, 161])
        assert steps["achieved_per_s"].tolist() == pytest.approx([20, 40, 60, 80, 100, 120, 140, 0])
        assert steps["p50_ms"].tolist() == [5] * 7 + [2000]
        assert steps["missed"].tolist() == [0] * 7 + [1]

    def test_few_requests_make_few_steps(self):
        """At least 20 in each."""
        assert len(latency(spans([asked(place, 1) for place in range(50)])).by_rate) == 2

    def test_second_by_second(self):
        """Seconds without a request have no row."""
        found = latency(spans([asked(0, 10), asked(500, 30), asked(2100, 70, "timeout")])).over_time
        assert found[
            ["at_s", "offered_per_s", "answered", "errors", "p50_ms", "p50_censored"]
        ].values.tolist() == [
            [0.0, 2.0, 2, 0, 10.0, False],
            [2.0, 1.0, 0, 1, 70.0, True],
        ]


class TestErrors:
    def test_they_are_told_apart(self):
        """By outcome and by what the answer said."""
        rows = [asked(0, 1) for _ in range(6)]
        rows += [asked(0, 1, "check_failed", attributes={"http.response.status_code": 503}) for _ in range(3)]
        rows += [asked(0, 1, "timeout", attributes={"error.type": "timeout"})]
        found = latency(spans(rows)).errors
        assert found[["endpoint", "outcome", "error", "n", "ratio"]].values.tolist() == [
            ["pay", "check_failed", "503", 3, 0.3],
            ["pay", "timeout", "timeout", 1, 0.1],
        ]
        assert [len(ids) for ids in found["exemplar_trace_ids"]] == [3, 1]
