"""Threads that marked work started: shadow work while its request lasts, and named when they go on."""

from __future__ import annotations

import queue
import threading
import time
from typing import Any

import psycopg2
import pytest
from attached_service import Service, attempt, forget, forget_runs, is_refused, marked, noted, wait_for
from two_sides import Sides, TestRun

ADD = "INSERT INTO item (note) VALUES (%s)"
GOES_ON = "which shadow work started, goes on after its request"


def set_pace(lingers_s: float) -> None:
    """Have the process lose patience sooner."""
    from perflab.shadow import lingering

    lingering.LINGERS_S = lingers_s


@pytest.fixture(autouse=True)
def pace(service: Service):
    """Wait for tenths of a second where services wait for seconds."""
    service.call(set_pace, 0.3)
    yield
    service.call(set_pace, 5.0)


def add(dsn: str, note: str) -> None:
    connection = psycopg2.connect(dsn)
    with connection, connection.cursor() as cursor:
        cursor.execute(ADD, [note])
    connection.close()


def work_off(dsn: str, box: list[str], done: list[Any]) -> None:
    while "stop" not in box:
        while box:
            note = box.pop(0)
            done.append(attempt(lambda note=note: add(dsn, note)))
        time.sleep(0.01)


def told() -> list[str]:
    return [why for store, why, _ in noted("refuse") if store == "the mark"]


def start_a_worker(dsn: str, mark: Any) -> list[Any]:
    """Have the first request, which is marked, start the service's worker; a real user's work follows."""
    box, done = [], []
    forget()
    with marked(mark):
        threading.Thread(target=work_off, args=(dsn, box, done), name="flusher", daemon=True).start()
    box.append("put by a real user")
    wait_for(lambda: done, "the worker")
    wait_for(told, "the run's end")
    box.append("stop")
    return told()


def test_a_worker_that_marked_work_started_ends_the_run(service: Service, sides: Sides, run: TestRun) -> None:
    """It does real users' work in the shadow, for all we know; it is named, once."""
    said = service.call(start_a_worker, sides.app, run.mark())
    assert len(said) == 1
    assert "'flusher'" in said[0]
    assert "work_off" in said[0]
    assert GOES_ON in said[0]


class Request:
    """A request as `perflab.shadow.inbound.Served` is one to who asks whether it is under way."""

    under_way = True


def start_others(dsn: str, mark: Any) -> list[Any]:
    """Start what may go on: fed by a queue, waiting for its time, of a request under way, soon done."""
    from perflab.shadow.handoff import serving

    fed: queue.Queue[Any] = queue.Queue()
    polled: queue.Queue[Any] = queue.Queue()
    ends, request = threading.Event(), Request()

    def poll_the_queue() -> None:
        while not ends.is_set():
            try:
                polled.get(timeout=0.01)
            except queue.Empty:
                continue

    forget()
    timer = threading.Timer(30, ends.set)
    with marked(mark):
        threading.Thread(target=fed.get, daemon=True).start()
        threading.Thread(target=poll_the_queue, daemon=True).start()
        threading.Thread(target=add, args=(dsn, "soon done"), daemon=True).start()
        timer.daemon = True
        timer.start()
        token = serving.set(request)
        threading.Thread(target=ends.wait, name="of a request", daemon=True).start()
        serving.reset(token)
        threading.Thread(target=ends.wait, name="goes on", daemon=True).start()
    wait_for(told, "the one that goes on")
    before = told()
    request.under_way = False
    wait_for(lambda: len(told()) > 1, "the one whose request is over")
    ends.set()
    timer.cancel()
    fed.put(None)
    return [before, told()]


def test_only_what_goes_on_after_its_request_is_named(service: Service, sides: Sides, run: TestRun) -> None:
    """Workers that a queue feeds, timers, and threads of a request that is under way are left alone."""
    before, after = service.call(start_others, sides.app, run.mark())
    assert [why.partition("' ")[0] for why in before] == ["thread 'goes on"]
    assert [why.partition("' ")[0] for why in after] == ["thread 'goes on", "thread 'of a request"]
    assert sides.notes("shadow") == ["soon done"]


def outlive_the_run(dsn: str, mark: Any) -> list[Any]:
    kept["box"], kept["done"] = [], []
    with marked(mark):
        threading.Thread(target=work_off, args=(dsn, kept["box"], kept["done"]), daemon=True).start()
    kept["box"].append("of marked work")
    wait_for(lambda: len(kept["done"]) == 1, "the worker")
    return kept["done"]


def work_on() -> list[Any]:
    forget_runs()
    for count, note in enumerate(("late", "a real user's", "another"), start=2):
        kept["box"].append(note)
        wait_for(lambda count=count: len(kept["done"]) == count, "the worker")
    kept["box"].append("stop")
    return kept["done"]


kept: dict[str, list[Any]] = {}


def test_a_worker_is_the_service_s_again_when_the_run_is_long_over(
    service: Service, sides: Sides, run: TestRun
) -> None:
    """Refused once more, it then works for real users, whose service would else have lost it."""
    assert service.call(outlive_the_run, sides.app, run.mark()) == [None]
    run.remove()
    _, late, *ordinary = service.call(work_on)
    assert is_refused(late, "not live any more")
    assert ordinary == [None, None]
    assert sides.notes("shadow") == ["of marked work"]
    assert sides.notes("production") == ["a real user's", "another"]
