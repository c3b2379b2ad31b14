"""The fit of an experiment, on requests whose slopes are known by construction."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from perflab.analysis.causal import fit_causal
from perflab.errors import AnalysisError, SchemaError
from perflab.load.experiment import Experiment
from perflab.testing import EPOCH_NS, S, spans
from perflab.units import NS_PER_MS

TWICE, LONGER, BESIDE = "shop: SELECT item", "shop: GET price", "shop: GET photo"
BLOCK_MS = 2000.0


def request(begins: float, rng: np.random.Generator, extra: dict[str, float], drift: float) -> S:
    """One request: a query twice, then two calls side by side of which one is 30 ms longer."""
    base = drift + float(rng.gamma(4, 1.0))
    now = begins + base
    children = []
    for _ in range(2):
        ends = now + 5 + float(rng.gamma(2, 0.5)) + extra.get(TWICE, 0.0)
        children.append(S("shop", "SELECT item", now, ends, kind="client"))
        now = ends + 0.5
    ends = []
    for name, takes in ((LONGER, 50.0), (BESIDE, 20.0)):
        ends.append(now + takes + extra.get(name, 0.0) + float(rng.random()))
        children.append(S("shop", name.removeprefix("shop: "), now, ends[-1], kind="client"))
    return S("shop", "GET /", begins, max(ends) + 1, kind="server", children=children)


def experiment(
    entity: str,
    delays_ms: tuple[float, ...] = (5.0, 10.0),
    *,
    applied: float = 1.0,
    rounds: int = 6,
    per_block: int = 25,
) -> tuple[pd.DataFrame, list[dict[str, int]]]:
    """Return spans and blocks of a run that gets slower from round to round."""
    rng = np.random.default_rng(5)
    plan = Experiment(entity, [int(ms * NS_PER_MS) for ms in delays_ms], max(4, rounds)).blocks()
    trees, blocks = [], []
    for at, (number, delay_ns) in enumerate(plan):
        if number >= rounds:
            break
        begins = at * 3000.0
        for offset in rng.random(per_block) * BLOCK_MS:
            extra = {entity: applied * delay_ns / NS_PER_MS}
            trees.append(request(begins + float(offset), rng, extra, 3.0 * number))
        trees.append(request(begins + 2500.0, rng, {entity: 500.0}, 0.0))  # between blocks: counts for none
        start_ns = EPOCH_NS + int(begins * NS_PER_MS)
        blocks.append(
            {"round": number, "delay_ns": delay_ns, "start_ns": start_ns,
             "end_ns": start_ns + int(BLOCK_MS * NS_PER_MS), "until_ns": start_ns + int(2400 * NS_PER_MS)}
        )  # fmt: skip
    return spans(trees), blocks


@pytest.mark.parametrize(
    ("entity", "slope", "own_ms"), [(TWICE, 2.0, 6.0), (LONGER, 1.0, 50.5), (BESIDE, 0.0, 20.5)]
)
def test_slopes_that_are_known(entity: str, slope: float, own_ms: float):
    """Twice a request in a row: 2; the longer of two side by side: 1; the shorter, with slack: 0."""
    found = fit_causal(*_arguments(entity, experiment(entity)))
    row = found.table.iloc[0]
    assert row["low"] <= slope <= row["high"]
    assert abs(row["slope"] - slope) < 0.1
    assert row["predicted"] == pytest.approx(slope, abs=0.05)
    assert row["own_ms"] == pytest.approx(own_ms, rel=0.05)
    assert row["gain_ms"] == pytest.approx(slope * own_ms, abs=0.1 * own_ms)
    assert (found.verdict, found.refused) == ("confirmed" if slope else "not felt", ())
    assert found.applied_ratio == pytest.approx(1.0, abs=0.02)
    assert found.counts == {"rounds": 6, "blocks": 18, "requests": 450, "undelayed": 150, "outside": 18,
                            "lost": 0, "failed": 0, "straddling": 0}  # fmt: skip


def test_slack_that_is_used_up_bends():
    """A call with 30 ms of slack, delayed by 20 and 60 ms: the first costs nothing, the rest all."""
    row = fit_causal(*_arguments(BESIDE, experiment(BESIDE, (20.0, 60.0)))).table.iloc[0]
    assert row["first_slope"] == pytest.approx(0.0, abs=0.05)
    assert row["slope"] == pytest.approx(row["predicted"], abs=0.1)
    assert row["slope"] > 0.4


def test_a_prediction_that_is_wrong_is_refuted():
    """Spans that claim a request waits, when it does not: here its time is cut free of its calls."""
    table, blocks = experiment(LONGER)
    is_root = table["parent_span_id"] == 0
    table.loc[is_root, "duration_ns"] = int(150 * NS_PER_MS)
    found = fit_causal(table, LONGER, blocks)
    row = found.table.iloc[0]
    assert row["predicted"] > 0.9
    assert abs(row["slope"]) < 0.05
    assert found.verdict == "refuted"


def test_a_delay_that_did_not_arrive_says_so():
    """A tenth of what was asked arrived: nothing can be said of what was asked."""
    found = fit_causal(*_arguments(TWICE, experiment(TWICE, applied=0.1)))
    assert found.verdict == "cannot say"
    assert "did not arrive as asked" in found.sentence


def test_lost_requests_and_few_rounds_say_so():
    """What was never sent has no time; three rounds have no interval worth the name."""
    table, blocks = experiment(TWICE, rounds=3)
    assert fit_causal(table, TWICE, blocks).refused == ("Only 3 whole rounds were played; 4 are needed.",)
    table, blocks = experiment(TWICE)
    due = S("perflab", "GET /", 100, 100, outcome="missed", scheduled_ms=100, kind="client")
    missed = spans([due])
    missed["trace_id"] = missed["trace_id"].cat.rename_categories(["f" * 32])
    found = fit_causal(_joined(table, missed), TWICE, blocks)
    assert (found.verdict, found.counts["lost"]) == ("cannot say", 1)


def test_calls_of_unlike_length_are_predicted_alike():
    """Short calls on the path, long ones beside it: a delay is added to each, whatever it took."""
    rng = np.random.default_rng(1)
    plan = Experiment(TWICE, [10 * NS_PER_MS]).blocks()
    trees, blocks = [], []
    for at, (number, delay_ns) in enumerate(plan):
        extra = delay_ns / NS_PER_MS
        for place, offset in enumerate(np.sort(rng.random(40)) * BLOCK_MS):
            begins = at * 3000.0 + float(offset)
            ends = begins + (1.0 if place % 2 else 11.0) + extra
            last = ends if place % 2 else begins + 60.0
            call = S("shop", "SELECT item", begins, ends, kind="client")
            beside = [] if place % 2 else [S("shop", "GET photo", begins, last, kind="client")]
            trees.append(S("shop", "GET /", begins, last, kind="server", children=[call, *beside]))
        start_ns = EPOCH_NS + at * 3 * 10**9
        blocks.append({"round": number, "delay_ns": delay_ns, "start_ns": start_ns,
                       "end_ns": start_ns + 2 * 10**9, "until_ns": start_ns + 2_400_000_000})  # fmt: skip
    row = fit_causal(spans(trees), TWICE, blocks).table.iloc[0]
    assert row["predicted"] == pytest.approx(0.5, abs=0.02)
    assert row["slope"] == pytest.approx(0.5, abs=0.2)
    assert row["verdict"] != "refuted"


def test_requests_that_failed_say_so():
    """Two in a hundred that timed out have no time; nothing is said then."""
    table, blocks = experiment(TWICE)
    due = [S("perflab", "GET /", 100 + at, 110 + at, outcome="timeout", scheduled_ms=100 + at, kind="client")
           for at in range(10)]  # fmt: skip
    failed = spans(due)
    failed["trace_id"] = failed["trace_id"].cat.rename_categories([f"f{at:031x}" for at in range(10)])
    found = fit_causal(_joined(table, failed), TWICE, blocks)
    assert (found.verdict, found.counts["failed"]) == ("cannot say", 10)
    assert "10 requests of the blocks failed" in found.sentence


def test_gains_of_unlike_operations_are_not_multiplied_by_each_other():
    """1 ms on the path of one operation, 9 ms beside a longer branch of the other: half a ms on average."""
    rng = np.random.default_rng(2)
    trees, blocks = [], []
    for at, (number, delay_ns) in enumerate(Experiment(TWICE, [10 * NS_PER_MS]).blocks()):
        for place in range(40):
            begins = at * 3000.0 + place * 50.0
            noise, takes = float(rng.random()) / 10, (1.0 if place % 2 else 9.0) + delay_ns / NS_PER_MS
            call = S("shop", "SELECT item", begins, begins + takes, kind="client")
            if place % 2:
                trees.append(
                    S("shop", "GET /on", begins, begins + takes + noise, kind="server", children=[call])
                )
            else:
                photo = S("shop", "GET photo", begins, begins + 40, kind="client")
                trees.append(S("shop", "GET /beside", begins, begins + 40 + noise, kind="server",
                               children=[call, photo]))  # fmt: skip
        start_ns = EPOCH_NS + at * 3 * 10**9
        blocks.append({"round": number, "delay_ns": delay_ns, "start_ns": start_ns,
                       "end_ns": start_ns + 2 * 10**9, "until_ns": start_ns + 2_400_000_000})  # fmt: skip
    table = fit_causal(spans(trees), TWICE, blocks).table.set_index("entry")
    every = table.loc["all"]
    assert every["gain_ms"] == pytest.approx(0.5, abs=0.1) == every["predicted_gain_ms"]
    assert table.loc["shop: GET /on", "gain_ms"] == pytest.approx(1.0, abs=0.1)
    assert table.loc["shop: GET /beside", "gain_ms"] == pytest.approx(0.0, abs=0.1)
    assert table["verdict"].tolist() == ["confirmed", *(
        "confirmed" if name == "shop: GET /on" else "not felt" for name in table.index[1:]
    )]  # fmt: skip


def test_requests_that_outlast_their_delay_say_so():
    """They end when the next delay is in force: what they took belongs to neither."""
    table, blocks = experiment(TWICE)
    short = [{**block, "end_ns": block["start_ns"] + 10**8, "until_ns": block["start_ns"] + 10**8 + 1}
             for block in blocks]  # fmt: skip
    found = fit_causal(table, TWICE, short)
    assert found.counts["straddling"] > 0.05 * found.counts["requests"]
    assert (found.verdict, "let blocks settle for longer" in found.sentence) == ("cannot say", True)


def test_few_requests_have_no_interval():
    """Two requests a block: a slope, but no verdict."""
    found = fit_causal(*_arguments(TWICE, experiment(TWICE, per_block=2)))
    assert found.verdict == "cannot say"
    assert found.table["low"].isna().all()
    assert "Too few" in found.table["evidence"].iloc[0]


def test_no_block_and_no_request():
    """An experiment that was stopped before its first block has no rows, or no rounds."""
    table, blocks = experiment(TWICE)
    found = fit_causal(table, TWICE, [])
    assert (len(found.table), found.verdict, found.counts["rounds"]) == (0, "cannot say", 0)
    half = fit_causal(table, TWICE, [{**block, "delay_ns": 0} for block in blocks])
    assert half.verdict == "cannot say"


def test_wrong_input_is_said():
    """Columns that are missing, blocks that overlap, entities and tables that are none."""
    table, blocks = experiment(TWICE, rounds=4)
    with pytest.raises(AnalysisError, match=r"\['end_ns'\] are missing"):
        fit_causal(table, TWICE, pd.DataFrame(blocks).drop(columns="end_ns"))
    with pytest.raises(AnalysisError, match="whole numbers"):
        fit_causal(table, TWICE, pd.DataFrame(blocks).assign(round=float("nan")))
    with pytest.raises(AnalysisError, match="one after another"):
        fit_causal(table, TWICE, [blocks[0], blocks[0]])
    with pytest.raises(AnalysisError, match="no entity 'shop: nothing'"):
        fit_causal(table, "shop: nothing", blocks)
    with pytest.raises(SchemaError):
        fit_causal(pd.DataFrame({"a": [1]}), TWICE, blocks)


def test_it_shows_itself():
    """In a notebook: the sentence, the table, what was counted; escaped."""
    found = fit_causal(*_arguments(TWICE, experiment(TWICE)))
    assert "shop: SELECT item: confirmed." in found._repr_html_()
    assert "450 requests" in found._repr_html_()
    assert repr(found).startswith("Causal(shop: SELECT item: confirmed")


def _arguments(entity: str, played: tuple[pd.DataFrame, list[dict[str, int]]]) -> tuple[Any, str, Any]:
    return played[0], entity, played[1]


def _joined(*tables: pd.DataFrame) -> pd.DataFrame:
    from perflab.trace.schema import concat_spans

    return concat_spans(tables)
