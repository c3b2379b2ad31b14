"""What chance makes of a measure: against a naive bootstrap, and the verdicts by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from perflab.analysis.bootstrap import Resampling
from perflab.analysis.drawn import Drawn, Interval, Pair, draw_requests, verdict_of
from perflab.analysis.latency import Requests
from perflab.analysis.quantile import CensoredSample


def made(waited_ms: list[float], *, lost: int = 0, failed: int = 0) -> Requests:
    """Return requests due every 10 ms, of which the first ``lost`` got no answer."""
    size = len(waited_ms)
    number = np.arange(size)
    return Requests(
        endpoint=np.full(size, "pay", dtype=object),
        due_ns=number * 10_000_000,
        waited_ns=(np.array(waited_ms) * 1e6).astype(np.int64),
        is_answered=number >= lost,
        is_error=number < max(lost, failed),
        is_late=number < 0,
        is_missed=number < 0,
        row=number,
    )


def drawn(value: float, rounds: list[float], **options) -> Drawn:
    return Drawn(value, np.array(rounds), 50, 100, **options)


class TestDrawRequests:
    def test_quantiles_of_rounds_are_those_of_the_drawn_requests(self):
        """Each round's quantile is that of the requests of its blocks, written out and sorted."""
        # Given 60 requests, two of them unanswered, and the plan by which they are drawn
        requests = made(np.random.default_rng(1).lognormal(1, 0.5, 60).tolist(), lost=2)
        plan = Resampling.of(requests.due_ns, seed=3)
        # When p50 and p95 are drawn
        found = draw_requests(requests, ("p95", "p50"), seed=3)
        # Then a naive bootstrap has the same rounds
        for which in (0, 17, 599):
            rows = [
                (begin + step) % 60
                for begin, times in enumerate(plan.draws[which].astype(int).tolist())
                for _ in range(times)
                for step in range(plan.block)
            ]
            slowest = requests.waited_ns[requests.is_answered].max()
            value = np.where(
                requests.is_answered, requests.waited_ns, np.maximum(requests.waited_ns, slowest)
            )
            sample = CensoredSample.of(value[rows], requests.is_answered[rows])
            for name, quantile in (("p50", 0.5), ("p95", 0.95)):
                assert found[name].rounds[which] == pytest.approx(sample.quantile(quantile)[0] / 1e6)
        assert list(found) == ["p95", "p50"]

    def test_unanswered_requests_make_lower_bounds(self):
        """A quantile that reaches them, and any mean."""
        found = draw_requests(made([5.0] * 400, lost=30), ("p50", "p95", "mean", "errors"), seed=0)
        assert [side.is_bound for side in found.values()] == [False, True, True, False]
        assert found["errors"].value == 30 / 400

    def test_no_error_is_not_no_doubt(self):
        """Of 100 requests without an error up to 3.6 % could be (the exact binomial bound)."""
        rounds = draw_requests(made([5.0] * 100), ("errors",), seed=0)["errors"].rounds
        assert np.quantile(rounds, 0.975) == pytest.approx(1 - 0.025 ** (1 / 100), rel=0.15)

    def test_how_many_requests_a_quantile_needs(self):
        """So many that one lies beyond it: 0.99 ** 368 < 0.025 <= 0.99 ** 367."""
        found = draw_requests(made([5.0] * 400), ("p50", "p95", "p99", "p999", "mean"), seed=0)
        assert [side.needed for side in found.values()] == [20, 72, 368, 3688, 20]
        assert 0.99**368 < 0.025 <= 0.99**367
        assert math.isnan(draw_requests(made([]), ("p99",), seed=0)["p99"].value)


class TestPair:
    def test_intervals(self):
        """Rounds of 10 against rounds of 20 to 24: both changes, and the level, hold their estimates."""
        pair = Pair(drawn(10, [10.0] * 5), drawn(22, [20.0, 21, 22, 23, 24]), "ms")
        for found, estimate in ((pair.difference(), 12), (pair.change(), 1.2), (pair.level(), 22)):
            assert found.estimate == pytest.approx(estimate)
            assert found.low < estimate < found.high
        assert pair.difference(2.2).estimate == pytest.approx(0)
        assert pair.p_value() < 1e-6

    def test_a_lower_bound_opens_an_end(self):
        """After it, the high one; before it, the low one."""
        plain, bound = drawn(10, [9.0, 10, 11]), drawn(20, [19.0, 20, 21], is_bound=True)
        opened = Pair(plain, bound, "ms").change()
        assert (opened.low > 0, math.isnan(opened.high)) == (True, True)
        assert math.isnan(Pair(bound, plain, "ms").change().low)
        assert "lower bound after: requests went unanswered" in Pair(plain, bound, "ms").why_not("p99")

    def test_nothing_before(self):
        """There is a difference, but no ratio."""
        pair = Pair(drawn(0, [0.0, 0, 0]), drawn(5, [4.0, 5, 6]), "ms")
        assert math.isnan(pair.change().estimate)
        assert pair.difference().low > 0

    def test_too_few(self):
        """An estimate without ends, and the reason."""
        pair = Pair(drawn(1, [1.0], needed=368), drawn(2, [2.0], needed=368), "ms")
        assert pair.change().estimate == pytest.approx(1)
        assert math.isnan(pair.change().low)
        assert math.isnan(pair.p_value())
        assert pair.why_not("p99") == "too few requests: 100 before and 100 after, p99 needs 368 of each"


@pytest.mark.parametrize(
    ("change", "q_value", "verdict"),
    [
        (Interval(0, -5, 5), 1.0, "same"),
        (Interval(0, -5.1, 5), 1.0, "cannot say"),
        (Interval(9, 1, 17), 0.01, "worse"),
        (Interval(-9, -17, -1), 0.01, "better"),
        (Interval(9, 1, 17), 0.2, "cannot say"),
        (Interval(4, 2, 6), 0.01, "cannot say"),
        (Interval(9, 1, math.nan), 0.01, "worse"),
        (Interval(9, math.nan, 17), 0.01, "cannot say"),
        (Interval(math.nan, math.nan, math.nan), math.nan, "cannot say"),
    ],
)
def test_verdicts(change: Interval, q_value: float, verdict: str):
    """Within 5 up or down is the same; beyond it, and beyond chance, is better or worse."""
    assert verdict_of(change, 5, q_value) == verdict
