"""Replaying traces: by hand, against a naive replay, and against simulated truth."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_traces import cruel, nested
from naive_replay import Replay
from queueing import Beside, Call, One, Station, System, Work, mean_ms, poisson, simulate

import perflab as pf
from perflab.analysis.criticalpath import critical_path
from perflab.analysis.whatif import WhatIf, what_if
from perflab.errors import AnalysisError, SchemaError
from perflab.testing import S, random_forest, spans
from perflab.trace.schema import empty_spans, span_table

MS = 1_000_000


def replayed(found: WhatIf, factors: dict[str, float]) -> np.ndarray:
    """Return the durations of requests with other factors, without all the tables."""
    return found.layout.replay(
        np.array([factors.get(name, 1.0) for name in found.path.walked.entities.names])
    )


def after_ms(table: pd.DataFrame, factors: dict[str, float]) -> list[float]:
    return (what_if(table, factors).requests["after_ns"] / MS).tolist()


class TestByHand:
    @pytest.mark.parametrize(
        ("factors", "expected"),
        [
            ({}, 100),
            ({"stock: SELECT stock": 0}, 70),
            ({"stock: SELECT stock": 0.5}, 85),
            ({"stock: SELECT stock": 2}, 130),
            ({"order -> stock": 0}, 90),
            ({"order: POST /orders": 0.1, "stock: POST /reserve": 3}, 75),
            ({"order: POST /orders": 1}, 100),
        ],
    )
    def test_each_entity_keeps_to_its_own_time(self, factors, expected):
        """50 ms of the entry's own, 10 of the gap, 10 of the callee, 30 of the statement, all in a line."""
        assert after_ms(nested(), factors) == [expected]

    def test_what_ran_beside_becomes_critical(self):
        """Without the longer of two parallel calls the shorter one is waited for."""
        children = [S("a", "short", 10, 50), S("a", "long", 10, 90)]
        table = spans([S("a", "top", 0, 100, children=children)])
        assert after_ms(table, {"a: long": 0}) == [60]
        assert after_ms(table, {"a: short": 0}) == [100]
        assert after_ms(table, {"a: short": 2.5}) == [10 + 100 + 10]

    def test_what_ran_in_a_line_stays_in_a_line(self):
        """The second call begins after the first and the same work as before."""
        children = [S("a", "one", 10, 40), S("a", "two", 45, 90)]
        table = spans([S("a", "top", 0, 100, children=children)])
        assert after_ms(table, {"a: one": 0}) == [70]
        assert after_ms(table, {"a: one": 2, "a: top": 0}) == [60 + 45]

    def test_a_beginning_while_another_runs_waits_for_work_alone(self):
        """10 ms of work, a call; 30 more beside it, a call; the parent's work is all that moves it."""
        children = [S("a", "early", 10, 50), S("a", "late", 40, 90)]
        table = spans([S("a", "top", 0, 100, children=children)])
        assert after_ms(table, {"a: early": 0}) == [100]
        assert after_ms(table, {"a: top": 0}) == [50]
        assert after_ms(table, {"a: late": 0}) == [60]

    def test_a_little_overlap_is_still_a_line(self):
        """49 us of overlap stay overlapped; 51 us are two at once."""
        line = [S("a", "one", 1, 4.049), S("a", "two", 4, 9)]
        beside = [S("a", "one", 1, 4.051), S("a", "two", 4, 9)]
        assert after_ms(spans([S("a", "top", 0, 10, children=line)]), {"a: one": 2}) == [13.049]
        assert after_ms(spans([S("a", "top", 0, 10, children=beside)]), {"a: one": 2}) == [10]

    def test_asynchronous_work_stays_off(self):
        """Nobody waits for the worker, however slow it gets."""
        work = S("mail", "process mails", 50, 90, kind="consumer")
        send = S("order", "send mails", 40, 45, kind="producer", children=[work])
        table = spans([S("order", "POST /orders", 0, 60, kind="server", children=[send])])
        assert after_ms(table, {"mail: process mails": 100}) == [60]
        assert after_ms(table, {"order: send mails": 0}) == [55]

    def test_the_table_tells_all_and_each_entry(self):
        """Two entries, percentiles by nearest rank."""
        # Given requests of 10, 20, 30 ms to one entry and of 100 to another, half of it in a statement
        trees = [
            S(
                "a",
                name,
                at,
                at + ms,
                kind="server",
                children=[S("a", "SELECT", at, at + ms / 2, kind="client")],
            )
            for name, at, ms in (("x", 0, 10), ("x", 200, 20), ("x", 400, 30), ("y", 600, 100))
        ]
        # When the statement takes no time
        found = what_if(spans(trees), {"a: SELECT": 0})
        # Then the heavier entry comes first, after all
        columns = [
            "entry",
            "requests",
            "before_p50_ms",
            "after_p50_ms",
            "before_p99_ms",
            "after_mean_ms",
            "gain_ms",
        ]
        assert found.table[columns].values.tolist() == [
            ["all", 4, 20, 10, 100, 20, 20],
            ["a: y", 1, 100, 50, 100, 50, 50],
            ["a: x", 3, 20, 10, 30, 10, 10],
        ]
        assert found.table[["low_ms", "high_ms"]].isna().all(axis=None)  # too few for an interval

    def test_the_interval_is_of_the_average_gain(self):
        """Blocks of time with gains of 1 and 3 ms: between them, about 2."""
        trees = [
            S(
                "a",
                "top",
                50 * at,
                50 * at + 10,
                children=[S("a", "child", 50 * at, 50 * at + 1 + 2 * (at % 2))],
            )
            for at in range(400)
        ]
        row = what_if(spans(trees), {"a: child": 0}).table.iloc[0]
        assert row["gain_ms"] == pytest.approx(2)
        assert 1.5 < row["low_ms"] <= 2 <= row["high_ms"] < 2.5
        assert row["at_least_ms"] == pytest.approx(2)  # no queue was seen, so that nothing is held back


class TestLimits:
    def test_gain_drag_and_slack_by_hand(self):
        """Of two parallel calls of 80 and 40 ms the longer delays by 40, the shorter could take 40 more."""
        children = [S("a", "short", 10, 50), S("a", "long", 10, 90)]
        found = what_if(spans([S("a", "top", 0, 100, children=children)]), {}).limits
        assert found[["entity", "own_ms", "gain_ms", "drag_ratio", "slack_ms"]].values.tolist() == [
            ["a: long", 80, 40, 0.5, 0],
            ["a: top", 20, 20, 1, 0],
            ["a: short", 40, 0, 0, 40],
        ]

    @given(st.integers(0, 10_000))
    @settings(max_examples=12, deadline=None)
    def test_the_largest_gain_is_that_of_factor_zero(self, seed):
        """Also never more than the exclusive time on the path, what forgiven overlaps hide aside."""
        table = random_forest(seed, traces=3)
        found = what_if(table, {})
        hidden = found.layout.overlap.sum()
        on_path = critical_path(table).table.set_index("entity")["exclusive_ns"]
        size = len(found.requests)
        for row in found.limits.to_dict("records"):
            saved = found.layout.before_ns - replayed(found, {row["entity"]: 0})
            assert row["gain_ms"] == pytest.approx(saved.mean() / MS)
            assert row["gain_ms"] <= (on_path.get(row["entity"], 0) + hidden) / size / MS + 1e-9
            assert row["gain_ms"] <= row["own_ms"] + 1e-9

    @given(st.integers(0, 10_000))
    @settings(max_examples=40, deadline=None)
    def test_slack_is_what_a_naive_replay_can_be_delayed_by(self, seed):
        """A span may end later by its slack, and not by a nanosecond more."""
        # Given
        table = cruel(seed) if seed % 2 else random_forest(seed, traces=2)
        naive = Replay(table)
        before = naive.durations({})
        found = what_if(table, {}).limits.set_index("entity")["slack_ms"]
        # When every span of an entity is delayed, one at a time
        for entity, keys in naive.entities().items():
            slack = round(found[entity] * MS)
            # Then no request is longer by then, and one is right after
            assert all(naive.durations({}, {key: slack}) == before for key in keys)
            assert any(naive.durations({}, {key: slack + 1}) != before for key in keys)


class TestAgainstTheNaiveReplay:
    @given(st.integers(0, 100_000), st.randoms(use_true_random=False))
    @settings(max_examples=80, deadline=None)
    def test_any_factors(self, seed, rng):
        """On tables with broken times, lost parents, doubles and clocks that disagree, to the nanosecond."""
        table = cruel(seed) if seed % 2 else random_forest(seed, traces=3)
        names = critical_path(table).walked.entities.names
        factors = {name: rng.choice([0, 0.25, 1, 1.7, 3]) for name in names if rng.random() < 0.5}
        found = what_if(table, factors)
        roots = zip(found.requests["trace_id"], found.path.entries["span_id"], strict=True)
        after = dict(zip(roots, found.requests["after_ns"], strict=True))
        assert after == Replay(table).durations(factors)

    @given(st.integers(0, 100_000))
    @settings(max_examples=25, deadline=None)
    def test_no_factors_change_nothing(self, seed):
        """The identity on every request, and on every statistic."""
        table = cruel(seed)
        found = what_if(table, {})
        assert found.requests["after_ns"].tolist() == found.requests["before_ns"].tolist()
        assert found.requests["before_ns"].tolist() == critical_path(table).entries["duration_ns"].tolist()
        assert (found.table["gain_ms"] == 0).all()

    @given(st.integers(0, 10_000))
    @settings(max_examples=15, deadline=None)
    def test_more_work_is_never_faster(self, seed):
        """Durations do not fall when a factor rises; order of rows and doubles change nothing."""
        table = random_forest(seed, traces=3)
        names = critical_path(table).walked.entities.names
        name = names[seed % len(names)]
        found = what_if(table, {})
        runs = [replayed(found, {name: factor}) for factor in (0, 0.5, 1, 2, 9)]
        assert all((low <= high).all() for low, high in pairwise(runs))
        shuffled = pd.concat([table, table.head(5)]).sample(frac=1, random_state=seed)
        shuffled = shuffled.astype(table.dtypes.to_dict())
        assert what_if(shuffled, {name: 2}).requests["after_ns"].tolist() == runs[3].tolist()


class TestSize:
    @pytest.mark.parametrize("shape", ["deep", "wide", "line"])
    def test_huge_traces_are_played(self, shape):
        """20,000 spans below each other, or 20,000 beside each other, or after each other."""
        size = 20_000
        number = np.arange(size)
        start, duration = {
            "deep": (number, 4 * size - 2 * number),
            "wide": (np.where(number > 0, 10 + number, 0), np.where(number > 0, 10**9, 2 * 10**9)),
            "line": (np.where(number > 0, 10 * number, 0), np.where(number > 0, 8, 10 * size)),
        }[shape]
        table = span_table(
            {
                "trace_id": ["a" * 32] * size,
                "span_id": number + 1,
                "parent_span_id": number if shape == "deep" else np.minimum(number, 1),
                "service": ["a"] * size,
                "name": np.where(number > 0, "child", "top"),
                "start_ns": start,
                "duration_ns": duration,
            }
        )
        found = what_if(table, {"a: child": 0})
        own = {"deep": 2, "wide": 10**9, "line": 10 + 2 * (size - 1)}[shape]
        assert found.requests["after_ns"].tolist() == [own]
        assert (what_if(table, {}).requests["after_ns"] == duration[0]).all()
        assert len(found.limits) == 2


class TestBadInput:
    def test_an_unknown_entity_is_told_with_those_near_it(self):
        """A slip of the pen is the usual cause."""
        with pytest.raises(AnalysisError, match=r"no entity 'stock: SELEC'.*'stock: SELECT stock'"):
            what_if(nested(), {"stock: SELEC": 0})

    @pytest.mark.parametrize("factor", [-0.1, math.nan, math.inf, 1001, "half", True, None])
    def test_a_factor_is_a_number_from_0_to_1000(self, factor):
        """Nothing else is guessed at."""
        with pytest.raises(AnalysisError, match="factor of 'stock: SELECT stock' is"):
            what_if(nested(), {"stock: SELECT stock": factor})

    def test_no_spans_no_requests(self):
        """And no error."""
        found = what_if(empty_spans(), {})
        assert (len(found.table), len(found.requests), len(found.limits)) == (0, 0, 0)
        assert "no requests" in repr(found)
        assert "<table>" in found._repr_html_()

    def test_another_table_is_refused(self):
        """The columns that are missing are named."""
        with pytest.raises(SchemaError, match="trace_id"):
            what_if(pd.DataFrame({"a": [1]}), {})

    def test_all_zero_durations(self):
        """One span that took no time."""
        assert after_ms(spans([S("a", "top", 5, 5)]), {"a: top": 7}) == [0]


class TestTheResult:
    def test_it_is_public_and_shows_itself(self):
        """With its bias; texts from traces are escaped."""
        found = pf.what_if(spans([S("<a>", "top", 0, 10)]), {"<a>: top": 0.5})
        assert isinstance(found, WhatIf)
        assert "&lt;a&gt;" in found._repr_html_()
        assert "too few calls to tell more" in found._repr_html_()
        assert "10 -> 5 ms" in repr(found)
        with pytest.raises(AttributeError):
            found.bias = ""


def _system(rng: np.random.Generator) -> System:
    """Return 3 to 6 stations, called in a line or beside each other."""
    stations = tuple(
        Station(
            f"s{number}",
            float(rng.uniform(2, 20)),
            int(rng.choice([1, 1, 2, 4])),
            float(rng.choice([1, 2, 4])),
            bool(rng.random() < 0.5),
        )
        for number in range(int(rng.integers(3, 7)))
    )
    calls = [Call(station.name) for station in stations]
    rng.shuffle(calls)
    steps: list = [Work(float(rng.uniform(1, 6)))]
    while calls:
        size = int(rng.choice([1, 1, 2, 3]))
        together, calls = tuple(calls[:size]), calls[size:]
        steps += [together[0] if len(together) == 1 else Beside(together), Work(float(rng.uniform(0.5, 3)))]
    return System(stations, One(tuple(steps)))


@pytest.fixture(scope="module")
def cases() -> pd.DataFrame:
    """Predicted and true gains of two sets of systems; the second has the more busy traced services."""
    return pd.concat([_cases(5), _cases(14)], ignore_index=True)


def _cases(number: int) -> pd.DataFrame:
    """Return gains of each station of random systems at random loads, faster by a random factor."""
    rng = np.random.default_rng(number)
    rows = []
    for case in range(14):
        system = _system(rng)
        per_s = system.capacity() * float(rng.uniform(0.05, 0.85))
        seed = 1000 * number + case
        arrivals = poisson(per_s, 1200, seed)
        table = simulate(system, arrivals, seed)
        for station in system.stations:
            factor = float(rng.choice([0, 0.25, 0.5, 0.75]))
            found = what_if(table, {station.entity: factor})
            every = found.table.iloc[0]
            truth = mean_ms(table) - mean_ms(simulate(system, arrivals, seed, {station.entity: factor}))
            rows.append(
                {
                    "set": number,
                    "case": case,
                    "utilisation": system.utilisation(station.name, per_s),
                    "workers": station.workers,
                    "is_traced": station.traced,
                    "before": every["before_mean_ms"],
                    "gain": every["gain_ms"],
                    "modelled": every["modelled_gain_ms"],
                    "at_least": every["at_least_ms"],
                    "truth": truth,
                    "estimated": found.utilisation["utilisation_ratio"].iloc[0],
                    "workers_seen": found.utilisation["workers"].iloc[0],
                    "is_bound": found.is_bound,
                }
            )
    return pd.DataFrame(rows)


class TestAgainstSimulatedTruth:
    """Open queueing systems, simulated again with the same draws and one station faster."""

    def test_where_little_is_busy_the_gain_is_right(self, cases):
        """Median error of at most 10 % of the gain itself where utilisation is at most 0.15."""
        quiet = cases[cases["utilisation"] <= 0.15]
        error = (quiet["gain"] - quiet["truth"]).abs() / quiet["truth"]
        print(f"\ngain at utilisation <= 0.15: median error {error.median():.1%} of {len(quiet)} cases")
        assert len(quiet) >= 20
        assert error.median() <= 0.10

    def test_where_something_is_busy_the_bound_holds(self, cases):
        """In 95 % of cases the true gain is at least that, a simulation's noise of 0.5 % of latency aside."""
        busy = cases[cases["utilisation"] > 0.15]
        holds = busy["at_least"] <= busy["truth"] + 0.005 * busy["before"]
        part = (busy["at_least"] / busy["truth"]).median()
        print(f"\nbound holds in {holds.mean():.1%} of {len(busy)} cases, at {part:.0%} of the truth")
        assert len(busy) >= 20
        assert holds.mean() >= 0.95

    def test_gains_are_in_the_right_order(self, cases):
        """Spearman's correlation of predicted and true gains of all entities, however busy.

        The simulation's workers are those the model takes for granted, so that it is all but exact here.
        """
        for number, group in cases.groupby("set"):
            by_replay = group["gain"].rank().corr(group["truth"].rank())
            correlation = group["modelled"].rank().corr(group["truth"].rank())
            print(f"\nset {number}: rank correlation {correlation:.3f}, by replay alone {by_replay:.3f}")
            assert len(group) >= 40
            assert correlation >= 0.95

    def test_with_queues_played_the_gain_is_right_where_something_is_busy(self, cases):
        """Median error of at most 10 % of the gain where a queue was seen."""
        seen = cases[(cases["workers_seen"] > 0) & (cases["utilisation"] > 0.15)]
        error = (seen["modelled"] - seen["truth"]).abs() / seen["truth"]
        print(
            f"\nmodelled gain where a queue is seen: median error {error.median():.1%} of {len(seen)} cases"
        )
        assert len(seen) >= 40
        assert error.median() <= 0.10

    def test_utilisation_is_found_from_calls_in_flight(self, cases):
        """Where a queue is seen it is right; a single worker's queue is seen from 0.2 on."""
        seen = cases[cases["workers_seen"] > 0]
        error = (seen["estimated"] - seen["utilisation"]).abs()
        right = (seen["workers_seen"] == seen["workers"]).mean()
        print(
            f"\nutilisation: median error {error.median():.3f}; workers right in {right:.0%} of {len(seen)}"
        )
        assert error.median() <= 0.02
        assert right >= 0.9
        busy = cases[(cases["utilisation"] > 0.2) & (cases["workers"] == 1)]
        assert busy["is_bound"].mean() >= 0.95

    @pytest.mark.parametrize(("utilisation", "overstated"), [(0.5, 1.5), (0.8, 3.0)])
    def test_the_bias_is_what_the_result_says(self, utilisation, overstated):
        """One worker, exponential times, twice as fast: what is left is overstated by known ratios."""
        # Given a queue seen by its caller alone
        system = System((Station("s", 10),), One((Call("s"),)))
        arrivals = poisson(100 * utilisation, 12_000, 3)
        table = simulate(system, arrivals, 3)
        # When it is made twice as fast, in the replay and in truth
        found = what_if(table, {"front: s": 0.5})
        truth = mean_ms(simulate(system, arrivals, 3, {"front: s": 0.5}))
        # Then theory's ratio (1 - u/2) / (1 - u) is between them
        assert (1 - utilisation / 2) / (1 - utilisation) == pytest.approx(overstated)
        assert found.table["after_mean_ms"].iloc[0] / truth == pytest.approx(overstated, rel=0.15)
        assert found.is_bound
        assert "too busy for more than a bound" in found.bias
        assert f"utilisation about {utilisation:.1f}" in found.bias
