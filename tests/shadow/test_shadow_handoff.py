"""Work handed on through queues: each item is whose it was, in threads and tasks of an attached process."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from attached_service import Service
from attached_stage import Stage, stage_in
from handed_on import (
    batched,
    bounded,
    crossed,
    emptied,
    logged,
    polled,
    pooled,
    stacked,
    taken_by_a_thread_of_marked_work,
    upkept,
    worked,
)

from perflab.shadow.mark import mint


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage_in(tmp_path_factory.mktemp("stage")) as opened:
        yield opened


@pytest.fixture(scope="module")
def inside(stage: Stage) -> Iterator[Service]:
    """Start an attached process."""
    with Service(stage.environment()) as started:
        yield started


@pytest.fixture
def mark(stage: Stage) -> dict[str, Any]:
    return a_mark(stage)


def a_mark(stage: Stage, accepted: tuple[str, ...] = ()) -> dict[str, Any]:
    run = stage.live(accepted)
    made = mint(run, random.getrandbits(64))
    return {"tag": run.tag, "token": made.token, "trace_id": str(made.trace_id)}


@pytest.mark.parametrize("kind", ["Queue", "PriorityQueue", "SimpleQueue"])
@pytest.mark.parametrize("patience_s", [None, 0.5])
@pytest.mark.parametrize("started_by", ["nobody", "marked work"])
def test_each_item_is_whose_it_was(
    stage: Stage, inside: Service, mark: dict[str, Any], kind: str, patience_s: float | None, started_by: str
):
    """Workers, also those that marked work started, do each item as the work of who put it."""
    found = inside.call(
        worked, kind, [mark, a_mark(stage)], mark if started_by != "nobody" else None, patience_s
    )
    assert len(found) == 600
    assert len({put for put, _ in found}) == 3
    assert [pair for pair in found if pair[0] != pair[1]] == []


@pytest.mark.parametrize("style", ["until empty", "by size", "until there is none", "with a timeout"])
def test_a_batch_is_of_one_side(inside: Service, mark: dict[str, Any], style: str):
    """What a worker gathers without waiting and writes at once is either marked or ordinary, in order."""
    tag = mark["tag"]
    assert inside.call(batched, mark, style) == [
        [[0, 0], 0],
        [[tag, tag], tag],
        [[0], 0],
        [[tag], tag],
    ]


def test_a_worker_that_polls_gets_everything(inside: Service, mark: dict[str, Any]):
    """Being told once that a queue is empty, where the side changes, stops nobody."""
    assert [put for put, seen in inside.call(polled, mark) if put == seen] == [
        0, mark["tag"], 0, mark["tag"], mark["tag"],
    ]  # fmt: skip


def test_an_item_is_over_when_nothing_came_twice(stage: Stage, inside: Service, mark: dict[str, Any]):
    """A worker may still write what it gathered; then it is what it was before."""
    tag, other = mark["tag"], a_mark(stage)
    assert inside.call(emptied, mark, None) == [0, tag, tag, 0, 0]
    assert inside.call(emptied, mark, other) == [other["tag"], tag, tag, other["tag"], other["tag"]]


def test_pools_hand_on_no_mark(stage: Stage, inside: Service, mark: dict[str, Any]):
    """A connection that marked work put back makes nobody marked: neither requests nor other threads."""
    headers = stage.marked()
    tag = stage.run_key.tag
    assert inside.call(pooled, mark, headers) == [[0, tag, 0, 0], []]
    assert inside.call(stacked, mark) == [[1, 0]]


def test_a_user_who_takes_what_shadow_work_put_is_counted(inside: Service, mark: dict[str, Any]):
    """A real user's request stays one, gets what it asked for, and the run hears of it."""
    why = "a request of a real user took from a queue what shadow work had put there"
    assert inside.call(crossed, mark) == [["news", 0], [["the mark", why]]]


def test_anybody_s_item_stops_the_run(inside: Service, mark: dict[str, Any]):
    """A thread of marked work that takes an item without a mark may be at a real user's: that is told."""
    assert inside.call(taken_by_a_thread_of_marked_work, mark, "job") == [[0], ["the mark"]]
    assert inside.call(taken_by_a_thread_of_marked_work, mark, "connection") == [[mark["tag"]], []]


def test_log_records_are_no_work(inside: Service, mark: dict[str, Any]):
    """A listener writes the lines of marked work as it writes all others."""
    assert inside.call(logged, mark) == [["a line", 0]]


def test_a_queue_keeps_its_promises(inside: Service, mark: dict[str, Any]):
    """Bounds, joins, exceptions and ranks are those of a queue without us."""
    assert inside.call(bounded, mark) == ["full", "a", 1, True, True, [1, 2, 3, 4]]


def test_upkeep_of_the_shadow_side_stays_what_it_is(inside: Service, mark: dict[str, Any]):
    """A twin pool's worker is never made ordinary by what it takes, and what it puts is upkeep too."""
    assert inside.call(upkept, mark) == [True, True, True, True]
