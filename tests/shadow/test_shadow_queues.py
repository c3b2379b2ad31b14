"""The queues of asyncio, and what else must go on as it was: tasks, waiting, names and types."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from attached_service import Service
from attached_stage import Stage, stage_in
from handed_on import alike, alike_in_threads, batched_in_tasks, in_a_task_of_its_own, worked_in_tasks
from test_shadow_handoff import a_mark


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


@pytest.mark.parametrize("style", ["get", "wait_for", "timeout", "poll"])
@pytest.mark.parametrize(("kind", "started_by"), [("Queue", ""), ("PriorityQueue", ""), ("Queue", "marked")])
def test_each_item_is_whose_it_was(
    inside: Service, mark: dict[str, Any], style: str, kind: str, started_by: str
):
    """A task that lives for long does each item as the work of who put it, however it takes them."""
    found = inside.call(worked_in_tasks, mark, style, kind, mark if started_by else None)
    assert len(found) == 60
    assert [pair for pair in found if pair[0] != pair[1]] == []
    assert {put for put, _ in found} == {0, mark["tag"]}


@pytest.mark.parametrize("style", ["until empty", "by size", "with a timeout"])
def test_a_batch_is_of_one_side(inside: Service, mark: dict[str, Any], style: str):
    """What a task gathers without waiting and writes at once is either marked or ordinary."""
    tag = mark["tag"]
    assert inside.call(batched_in_tasks, mark, style) == [[[0, 0], 0], [[tag, tag], tag], [[0], 0]]


def test_what_a_task_of_its_own_takes_is_put_aside(inside: Service, mark: dict[str, Any]):
    """Where the mark would be lost with the task that took the item, nobody gets it, and it is counted."""
    found = inside.call(in_a_task_of_its_own, mark)
    assert found == ["ordinary", 0, [["queue", int(mark["trace_id"])]]]


def test_everything_else_is_as_without_us(inside: Service, mark: dict[str, Any]):
    """Timeouts, cancelling, bounds, names and types are the library's own."""
    assert inside.call(alike, mark) == [
        "TimeoutError", "TimeoutError", "slept", None, True, "full", 5, True, 0,
    ]  # fmt: skip
    assert inside.call(alike_in_threads) == ["SimpleQueue", "_queue", True, 2, 1, 2, True, True, True, True]
