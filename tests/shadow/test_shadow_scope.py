"""Whose work it is, wherever Python takes it; inside a process with the agent."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import os
import threading
import time
from typing import Any

import pytest
from attached_service import (
    Service,
    allow_pauses,
    attempt,
    forget,
    is_refused,
    marked,
    noted,
    poll,
    spans,
    wait_for,
)
from two_sides import Sides, TestRun

from perflab.errors import ShadowError
from perflab.shadow.scope import Shadow, mark_headers

Mark = dict[str, Any] | None


def where_it_goes(mark: Mark) -> dict[str, int]:
    """Return the tag of the work in every place it may be handed to, -1 for ordinary work."""
    from perflab.shadow import scope

    def tag() -> int:
        found = scope.current()
        return -1 if found is None else found.tag

    def in_thread(name: str, thread_class: Any) -> None:
        thread = thread_class(target=lambda: found.update({name: tag()}))
        thread.start()
        thread.join()

    async def asynchronous() -> None:
        async def task() -> int:
            await asyncio.sleep(0)
            return tag()

        with marked(mark):
            later = asyncio.create_task(task())
            found["to_thread"] = await asyncio.to_thread(tag)
            found["executor of the loop"] = await asyncio.get_running_loop().run_in_executor(None, tag)
        found["task"] = await later
        found["task after"] = await asyncio.create_task(task())

    found: dict[str, int] = {}
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        with marked(mark):
            found["here"] = tag()
            in_thread("thread", threading.Thread)
            found["executor"] = executor.submit(tag).result()
            found["ordinary"] = scope.ordinary(tag)
            with marked(None):
                found["nested ordinary"] = tag()
            found["here again"] = tag()
        found["executor after"] = executor.submit(tag).result()
    in_thread("thread after", threading.Thread)
    found["after"] = tag()
    asyncio.run(asynchronous())
    return found


def test_the_mark_follows_its_work(service: Service, sides: Sides, run: TestRun) -> None:
    """Into threads, executors, tasks; not into what belongs to nobody or comes afterwards."""
    # When
    found = service.call(where_it_goes_in_thread, run.mark())
    # Then
    follows = {"here", "here again", "thread", "executor", "to_thread", "executor of the loop", "task"}
    assert {name for name, tag in found.items() if tag == run.tag} == follows
    assert {tag for name, tag in found.items() if name not in follows} == {-1}


def where_it_goes_in_thread(mark: Mark) -> dict[str, int]:
    """Call `where_it_goes` in a thread: it runs an event loop of its own."""
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        return executor.submit(where_it_goes, mark).result()


def test_a_shadow_consumer_is_never_ordinary(consumer: Service, sides: Sides, run: TestRun) -> None:
    """What belongs to no run is marked as upkeep there, everywhere."""
    found = consumer.call(where_it_goes_in_thread, None)
    assert set(found.values()) == {0}


def require(mark: dict[str, Any]) -> list[Any]:
    from perflab.shadow import scope

    forget()
    shadow = scope.Shadow(mark["tag"], mark["token"], int(mark["trace_id"]))
    said = [attempt(lambda: scope.require_live(shadow, "orders"))]
    said.append(attempt(lambda: scope.require_live(scope.IDLE, "orders")))
    return [*said, noted("refuse")]


def test_work_goes_on_only_while_its_run_is_live(service: Service, sides: Sides, run: TestRun) -> None:
    """Unlisted, killed and expired runs are refused, with store and trace; upkeep of no run is not."""
    # Given
    mark = run.mark()
    assert service.call(require, mark) == [None, None, []]
    # When
    run.kill()
    said, idle, refused = service.call(require, mark)
    # Then
    why = "the run is not live any more"
    assert said == f"ShadowError: perflab refused shadow work in service 'shop': orders: {why}"
    assert idle is None
    assert refused == [["orders", why, int(mark["trace_id"])]]
    # And
    run.remove()
    assert is_refused(service.call(require, mark)[0], why)


def go_stale(mark: dict[str, Any]) -> list[Any]:
    """Live on a list that nobody renews, until it is too old to be believed."""
    from perflab.shadow import control
    from perflab.shadow.scope import process

    source, process.control._source = process.control._source, "/nowhere/control.json"
    allow_pauses(False)
    try:
        live = attempt(lambda: process.control.is_live(mark["tag"]))
        wait_for(lambda: process.control.age_s > control.STALE_AFTER_S, "the list is stale")
        return [live, *require(mark)[:1]]
    finally:
        process.control._source = source
        allow_pauses(True)
        poll()


def test_a_stale_list_ends_every_run(service: Service, sides: Sides, run: TestRun) -> None:
    """Five seconds without a controller and marked work is refused."""
    live, said = service.call(go_stale, run.mark())
    assert live is True
    assert is_refused(said, "not live any more")
    assert service.call(require, run.mark())[0] is None


def permits() -> list[bool]:
    from perflab.shadow import scope

    said = [scope.permitted()]
    with scope.permit():
        said.append(scope.permitted())
        with scope.permit():
            pass
        said.append(scope.permitted())
        said.append(scope.ordinary(scope.permitted))
    with contextlib.suppress(ShadowError), scope.permit():
        raise ShadowError
    return [*said, scope.permitted()]


def withheld() -> list[bool]:
    from perflab.shadow import scope

    with scope.permit():
        with scope.withhold():
            inside = scope.permitted()
        return [inside, scope.permitted()]


def test_a_permit_is_withheld_from_the_service_s_own_code(service: Service) -> None:
    """Inside what a driver calls back there is none; afterwards it is there again."""
    assert service.call(withheld) == [False, True]


def test_a_permit_ends_with_its_block(service: Service) -> None:
    """Nested, and left by an error."""
    assert service.call(permits) == [False, True, True, False, False]


class Unwritable(Exception):  # noqa: N818 - what it is called does not matter
    """An error that cannot be written down."""

    def __str__(self) -> str:
        raise RuntimeError("not for you")


def make_spans(mark: Mark) -> list[Any]:
    from opentelemetry.trace import SpanKind

    from perflab.shadow import scope

    forget()
    with marked(mark):
        for error in (None, ValueError("x" * 300), Unwritable()):
            scope.finish(scope.begin("name", SpanKind.CLIENT, {"a": 1}), error)
    return [[dict(span.attributes), span.status.status_code.name, span.status.description] for span in spans]


def test_spans_say_whose_work_they_are(service: Service, sides: Sides, run: TestRun) -> None:
    """Marked ones carry the synthetic type; an error its type and the beginning of its text."""
    for mark, more in ((None, {}), (run.mark(), {"user_agent.synthetic.type": "test"})):
        attributes = {"a": 1, **more}
        assert service.call(make_spans, mark) == [
            [attributes, "UNSET", None],
            [{**attributes, "error.type": "ValueError"}, "ERROR", "x" * 200],
            [{**attributes, "error.type": "Unwritable"}, "ERROR", ""],
        ]


def delays(mark: Mark) -> list[int]:

    with marked(mark):
        return delays_here()


def delays_here() -> list[int]:
    from perflab.shadow import scope

    return [scope.delay_ns("SELECT stock"), scope.delay_ns("GET x", "stock"), scope.delay_ns("SELECT item")]


def test_delays_are_of_an_operation_or_an_edge(service: Service, sides: Sides, run: TestRun) -> None:
    """Entities as every table prints them; of other services none. Ordinary work never waits."""
    mark = run.mark()
    sides.publisher.delay(
        {"shop: SELECT stock": 5, "shop: GET x": 1, "shop -> stock": 20, "cart: SELECT item": 9}
    )
    try:
        assert service.call(delays, mark) == [5, 21, 0]
        assert service.call(delays_here) == [0, 0, 0]
        assert service.call(delays, {**mark, "tag": 1}) == [0, 0, 0]  # of a run that is not live
    finally:
        sides.publisher.delay({})
    assert service.call(delays, mark) == [0, 0, 0]


async def slept_on_a_loop() -> list[Any]:
    from perflab.shadow import scope

    began_s = time.monotonic()
    scope.sleep(10**9)
    on_loop_s = time.monotonic() - began_s
    await asyncio.to_thread(scope.sleep, 200_000_000)
    return [on_loop_s < 0.5, time.monotonic() - began_s - on_loop_s >= 0.2]


def test_nobody_sleeps_on_an_event_loop(service: Service) -> None:
    """Whoever else is served there would wait, too; in a thread of its own a call does."""
    assert service.call(slept_on_a_loop) == [True, True]


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ({}, "perflab=T"),
        ({"tracestate": "a=1", "baggage": "a=1"}, "perflab=T,a=1"),
        ({"tracestate": "a=1,perflab=T", "baggage": "a=1,perflab=T"}, "a=1,perflab=T"),
    ],
)
def test_the_mark_goes_out_once(there: dict[str, str], expected: str) -> None:
    """In both carriers, beside what others put there."""
    headers = dict(there)
    mark_headers(headers, Shadow(1, "T", 2))
    assert headers == {"tracestate": expected, "baggage": expected}


def fork() -> Any:
    """Fork and return what the child believes of itself."""
    from perflab.shadow.scope import process

    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            believed = {
                "hooks": sorted(process.ledger.hooks),
                "uncovered": sorted(process.ledger.uncovered),
                "live": sorted(process.control.live or {}),
                "claims": len(process.ledger.take()["claims"]),
            }
            os.write(writing, json.dumps(believed).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        believed = json.loads(answer.read())
    os.waitpid(pid, 0)
    own = {"hooks": sorted(process.ledger.hooks), "uncovered": sorted(process.ledger.uncovered)}
    return [believed, own]


def test_a_forked_worker_is_as_attached_as_its_parent(service: Service, sides: Sides, run: TestRun) -> None:
    """It knows the live runs, and what is not covered: a hole does not close by forking."""
    believed, own = service.call(fork)
    assert believed["live"] == [run.tag]
    assert {name: believed[name] for name in own} == own
    assert "psycopg" in believed["hooks"]
    assert believed["claims"] == 0
