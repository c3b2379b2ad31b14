"""The requests of an experiment's blocks: which belong to which, and what the replay says of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from perflab.analysis.criticalpath import critical_path
from perflab.analysis.trial import Trial, check_blocks, whole_rounds
from perflab.errors import AnalysisError
from perflab.testing import EPOCH_NS, S, spans
from perflab.units import NS_PER_MS

QUERY = "shop: SELECT item"


def block(number: int, delay_ms: float, start_ms: float, end_ms: float, until_ms: float) -> dict[str, int]:
    moments = {"start_ns": start_ms, "end_ns": end_ms, "until_ns": until_ms}
    return {
        "round": number,
        "delay_ns": int(delay_ms * NS_PER_MS),
        **{name: EPOCH_NS + int(ms * NS_PER_MS) for name, ms in moments.items()},
    }


def request(begins: float, query_ms: float, operation: str = "GET /") -> S:
    """Return a request of 2 ms around a query."""
    ends = begins + 1 + query_ms
    query = S("shop", "SELECT item", begins + 1, ends, kind="client")
    return S("shop", operation, begins, ends + 1, kind="server", children=[query])


def test_requests_belong_to_the_block_they_began_in():
    """One before, one in each block, one that ends too late, one between blocks."""
    blocks = [block(0, 0, 100, 200, 250), block(0, 10, 300, 400, 450)]
    begins = {50.0: 5.0, 100.0: 5.0, 199.0: 5.0, 200.0: 5.0, 310.0: 15.0, 390.0: 100.0}
    table = spans([request(at, takes) for at, takes in begins.items()])
    trial = Trial.of(critical_path(table), QUERY, check_blocks(blocks))
    assert sorted(zip(trial.delay_ms.tolist(), trial.own_ms.tolist(), strict=True)) == [
        (0.0, 5.0), (0.0, 5.0), (10.0, 15.0), (10.0, 100.0),
    ]  # fmt: skip
    assert trial.calls.tolist() == [1.0] * 4
    assert trial.counts == {
        "blocks": 2, "requests": 4, "undelayed": 2, "outside": 2, "lost": 0, "failed": 0, "straddling": 1,
    }  # fmt: skip
    # and the replay speaks of requests without delay only
    bare = trial.delay_ms == 0
    assert trial.longer_ms[bare].tolist() == [10.0, 10.0]
    assert trial.gone_ms[bare].tolist() == [5.0, 5.0]
    assert np.isnan(trial.longer_ms[~bare]).all()
    assert np.isnan(trial.gone_ms[~bare]).all()


def test_slopes_are_within_entry_operations():
    """A slow operation that is asked for more often under delay makes no slope."""
    blocks = [block(0, 0, 0, 1000, 1000), block(0, 10, 1000, 2000, 2000)]
    trees = []
    for start, delay, slow in ((0.0, 0.0, 2), (1000.0, 10.0, 6)):
        trees += [request(start + 100 * at, 5 + delay, "GET /") for at in range(4)]
        trees += [request(start + 450 + 50 * at, 300 + delay, "GET /slow") for at in range(slow)]
    trial = Trial.of(critical_path(spans(trees)), QUERY, check_blocks(blocks))
    every = np.ones(len(trial.entry), dtype=bool)
    assert trial.slopes(trial.time_ms, every, [0]) == pytest.approx([1.0])
    assert np.isnan(trial.slopes(trial.time_ms, every, [1])).all()
    assert np.isnan(trial.slopes(trial.time_ms, trial.delay_ms > 0, [0])).all()  # one delay has no slope


def test_whole_rounds_hold_every_delay():
    """A round that was cut short, or has no block without delay, tells nothing."""
    plan = [(0, 0), (0, 5), (0, 9), (1, 5), (1, 0), (2, 9), (2, 5), (2, 0)]
    blocks = [block(number, ms, at * 10, at * 10 + 5, at * 10 + 6) for at, (number, ms) in enumerate(plan)]
    assert whole_rounds(check_blocks(blocks)) == [0, 2]
    assert whole_rounds(check_blocks([block(0, 0, 0, 1, 1)])) == []
    assert whole_rounds(check_blocks([])) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"end_ns": EPOCH_NS}, "one after another"),
        ({"until_ns": EPOCH_NS + NS_PER_MS}, "one after another"),
        ({"until_ns": EPOCH_NS + 25 * NS_PER_MS}, "one after another"),
        ({"delay_ns": -1}, "no delay is below 0"),
        ({"round": "first"}, "whole numbers"),
    ],
)
def test_blocks_that_are_none(changed: dict[str, object], said: str):
    """They end, one after another, and what they hold is numbers; nothing is put right silently."""
    blocks = pd.DataFrame([block(0, 0, 0, 10, 20), block(0, 5, 20, 30, 40)]).astype(object)
    for name, value in changed.items():
        blocks.loc[0, name] = value
    with pytest.raises(AnalysisError, match=said):
        check_blocks(blocks)
