"""An experiment's plan: balanced, by lot, the same again; and that delays never outlive it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perflab.errors import ConfigError
from perflab.load.arrivals import Arrivals
from perflab.load.experiment import Blocks, Experiment, fit_experiment, undelayed_spans
from perflab.run import Run
from perflab.testing import EPOCH_NS, S, spans
from perflab.trace.schema import span_table
from perflab.trace.store import write_spans
from perflab.units import NS_PER_MS, NS_PER_S, duration_ns

ENTITY = "stock: SELECT stock"


@given(
    st.lists(st.integers(1, 10**9), min_size=1, max_size=5, unique=True),
    st.integers(4, 12),
    st.integers(0, 2**32),
)
def test_every_round_holds_every_delay_once(delays_ns: list[int], rounds: int, seed: int):
    """Whatever is asked: each round is a permutation of all delays and none, and a seed says which."""
    experiment = Experiment(ENTITY, delays_ns, rounds, seed=seed)
    blocks = experiment.blocks()
    assert Counter(blocks) == {(at, delay): 1 for at in range(rounds) for delay in (0, *delays_ns)}
    assert [number for number, _ in blocks] == sorted(number for number, _ in blocks)
    assert blocks == Experiment(ENTITY, delays_ns, rounds, seed=seed).blocks()


@pytest.mark.parametrize("block", ["2.1s", "1.6s", "2.7s", "2.00001s"])
def test_load_can_last_as_long_to_the_nanosecond(block: str):
    """What the verb asks for is what the experiment needs, whatever the fractions."""
    experiment = Experiment(ENTITY, [1, 2], block_s=duration_ns(block) / NS_PER_S)
    assert Arrivals.constant(20, f"{experiment.lasts_ns}ns").duration_ns == experiment.lasts_ns


def test_orders_differ_between_rounds():
    """Not one order again and again, which a period of the system could fall in with."""
    blocks = Experiment(ENTITY, [1, 2, 3], 12).blocks()
    orders = {tuple(delay for number, delay in blocks if number == at) for at in range(12)}
    assert len(orders) > 3


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"delays_ns": []}, "an experiment has some"),
        ({"delays_ns": [0]}, "above 0 and up to 5 s"),
        ({"delays_ns": [6 * 10**9]}, "above 0 and up to 5 s"),
        ({"delays_ns": [5, 5]}, "each is there once"),
        ({"rounds": 3}, "4 to 100"),
        ({"block_s": 0.0}, "blocks last above 0 s"),
        ({"block_s": float("nan")}, "blocks last above 0 s"),
        ({"settles_s": 0.1}, "which a delay takes to reach every process"),
    ],
)
def test_an_experiment_that_could_tell_nothing_is_refused(changed: dict[str, Any], said: str):
    """Wrong input is said before anything is started."""
    with pytest.raises(ConfigError, match=said):
        Experiment(**{"entity": ENTITY, "delays_ns": [1], **changed})


def played(cancelled: bool) -> tuple[list[Mapping[str, int]], list[str], Blocks]:
    said: list[Mapping[str, int]] = []
    events: list[str] = []
    blocks = Blocks(
        Experiment(ENTITY, [7], 4, block_s=0.001, settles_s=0.8),
        said.append,
        lambda what, **details: events.append(what),
    )

    async def play() -> None:
        task = asyncio.create_task(blocks.play({"a -> b": 3}))
        if cancelled:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(task, 1.5)  # in the first block, after its delay is in force
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(play())
    return said, events, blocks


def test_delays_are_taken_back_and_others_stay():
    """Beside a planted fault; when all is played, only that one remains."""
    said, events, blocks = played(cancelled=False)
    assert said[-1] == {"a -> b": 3}
    assert Counter(str(sorted(one)) for one in said[:-1]) == {"['a -> b']": 4, f"['a -> b', '{ENTITY}']": 4}
    assert events == ["block"] * 8
    info = blocks.as_info()
    assert (info["entity"], info["asked"], len(info["blocks"])) == (ENTITY, 8, 8)
    assert all(block["end_ns"] > block["start_ns"] for block in info["blocks"])


def test_places_in_a_round_are_alike_for_every_delay():
    """A round and the next are each other's mirror: a drift leans none."""
    blocks = Experiment(ENTITY, [1, 2], 6, seed=7).blocks()
    place: dict[int, int] = {}
    for at, (_, delay) in enumerate(blocks):
        place[delay] = place.get(delay, 0) + at % 3
    assert set(place.values()) == {6}


def test_a_delay_that_cannot_be_written_costs_its_block_only():
    """A disk that is full for a moment: that block does not count, and it is said."""
    events: list[str] = []
    calls: list[Mapping[str, int]] = []

    def delay(delays_ns: Mapping[str, int]) -> None:
        calls.append(delays_ns)
        if len(calls) == 2:
            raise OSError("no space")

    blocks = Blocks(
        Experiment(ENTITY, [7], 4, block_s=0.001, settles_s=0.8),
        delay,
        lambda what, **details: events.append(what),
    )
    asyncio.run(blocks.play({}))
    assert (len(blocks.played), events.count("notice"), calls[-1]) == (7, 1, {})


def test_an_entity_nobody_called_cannot_be_told(tmp_path: Path):
    """Rare, or the run was stopped early: an answer, no error."""
    run = Run.create(tmp_path)
    block = {"round": 0, "delay_ns": 0, "start_ns": 1, "end_ns": 2, "until_ns": 3}
    run.write_info({"verdict": "stopped", "experiment": {"entity": "a -> b", "asked": 8, "blocks": [block]}})
    write_spans(spans([S("shop", "GET /", 0, 10, kind="server")]), run.path / "spans" / "shop.parquet")
    found = fit_experiment(run)
    assert found is not None
    assert (found.verdict, len(found.table)) == ("cannot say", 0)
    assert "no entity 'a -> b'" in found.sentence


def test_what_was_not_delayed_is_looked_at_alone(tmp_path: Path):
    """Whole requests that were due in blocks without delay; all of them where there was no such block."""
    run = Run.create(tmp_path)
    run.write_info({"verdict": "passed"})
    child = {at: S("stock", "SELECT stock", at + 1, at + 9, kind="client") for at in (10, 95, 150, 230, 410)}
    trees = [S("shop", "GET /", at, at + 10, kind="server", children=[one]) for at, one in child.items()]
    write_spans(spans(trees), run.path / "spans" / "shop.parquet")
    assert len(undelayed_spans(run)) == 10
    # When
    places = [(0, 0, 100), (7, 150, 200), (0, 220, 300)]
    blocks = [
        {
            "delay_ns": delay_ns,
            "start_ns": EPOCH_NS + begins * NS_PER_MS,
            "end_ns": EPOCH_NS + ends * NS_PER_MS,
        }
        for delay_ns, begins, ends in places
    ]
    run.write_info({"verdict": "passed", "experiment": {"entity": ENTITY, "blocks": blocks}})
    # Then
    kept = undelayed_spans(Run.open(run.path))
    roots = kept[kept["parent_span_id"] == 0]
    assert sorted((roots["start_ns"] - EPOCH_NS) // NS_PER_MS) == [10, 95, 230]
    assert sorted(kept["trace_id"].astype(str).value_counts()) == [2, 2, 2]


def test_what_a_request_causes_later_goes_with_it(tmp_path: Path):
    """A consumer in a trace of its own that links to the request: whenever it runs, they stay together."""
    run = Run.create(tmp_path)
    trees = [S("shop", "POST /order", at, at + 10, kind="server") for at in (10, 150)]
    later = [S("worker", "handle", at, at + 10, kind="consumer") for at in (120, 230)]
    table = spans(trees + later)
    orders, handled = (table[table["service"] == name] for name in ("shop", "worker"))
    links = [
        json.dumps([{"trace_id": str(trace), "span_id": f"{span:016x}"}])
        for trace, span in zip(orders["trace_id"], orders["span_id"], strict=True)
    ]
    table = table.assign(links=table["links"].astype(object))
    table.loc[handled.index, "links"] = links
    write_spans(span_table(table), run.path / "spans" / "shop.parquet")
    # When the first order is due without delay, and the second one's consumer runs without
    blocks = [
        {"delay_ns": 0, "start_ns": EPOCH_NS + begins * NS_PER_MS, "end_ns": EPOCH_NS + ends * NS_PER_MS}
        for begins, ends in ((0, 100), (200, 300))
    ]
    run.write_info({"verdict": "passed", "experiment": {"entity": ENTITY, "blocks": blocks}})
    kept = undelayed_spans(Run.open(run.path))
    # Then
    assert sorted((kept["start_ns"] - EPOCH_NS) // NS_PER_MS) == [10, 120]


def test_an_interrupted_experiment_leaves_no_delay():
    """Broken off in the middle of a block, its delay is taken back; the block does not count."""
    said, _, blocks = played(cancelled=True)
    assert said[-1] == {"a -> b": 3}
    assert blocks.as_info()["blocks"] == []


def test_a_run_without_an_experiment_has_no_fit(tmp_path: Path):
    """Nor one whose first block was not over."""
    run = Run.create(tmp_path)
    run.write_info({"verdict": "passed"})
    assert fit_experiment(run) is None
    run.write_info({"verdict": "stopped", "experiment": {"entity": "a -> b", "asked": 8, "blocks": []}})
    assert fit_experiment(run) is None
