"""Threads and executors: marked work keeps its mark, and leaves none behind in what outlives it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import pytest
from attached_service import Service as Inside
from attached_stage import Service, Stage, stage_in, trace_id
from handed_on import ways_of_tasks, ways_of_threads
from test_shadow_handoff import a_mark


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage_in(tmp_path_factory.mktemp("stage")) as opened:
        yield opened


@pytest.fixture(scope="module")
def services(stage: Stage) -> dict[str, Service]:
    return {
        "flask": stage.serve("flask_shop:app"),
        "fastapi": stage.serve("fastapi_shop:app", service="api"),
    }


WAYS = [("flask", way) for way in ("thread", "timer", "executor", "map")] + [
    ("fastapi", way)
    for way in (
        "to_thread",
        "run_in_executor",
        "own executor",
        "task",
        "anyio",
        "thread pool",
        "thread pool map",
        "other loop",
    )
]


@pytest.mark.parametrize(("service", "way"), WAYS)
def test_work_that_moves_to_a_thread_stays_what_it_was(
    stage: Stage, services: dict[str, Service], service: str, way: str
):
    """Ordinary, marked, ordinary again, through the same workers: each call is of its own request."""
    # Given the same call, made in turn for a real user, a marked request, and a real user
    called, marked = services[service], stage.marked()
    for headers in ({}, marked, {}, marked, {}):
        # When it is made through a thread
        assert called.call(way, stage.echo.url, headers)["status"] == 200
        # Then it carries the mark when its request did, below that request's span, and only then
        assert stage.echo.last.get("tracestate") == headers.get("tracestate")
        assert (trace_id(marked) in stage.echo.last.get("traceparent", "")) == bool(headers)
    # And marked work may not go from there where it may not go at all
    assert "denied" in called.call(way, stage.outside.url, marked)["message"]
    assert stage.outside.received == []


def test_work_for_another_process_is_refused(stage: Stage, services: dict[str, Service]):
    """A process pool would lose the mark: refused to marked work, as before for real users."""
    assert (
        "would lose the mark"
        in services["fastapi"].call("process", stage.echo.url, stage.marked())["message"]
    )
    assert services["fastapi"].call("process", stage.echo.url)["status"] == 200


@pytest.fixture(scope="module")
def inside(stage: Stage) -> Iterator[Inside]:
    """Start an attached process that samples no ordinary request at all."""
    with Inside(stage.environment(target={"sample_ratio": 0.0})) as started:
        yield started


def test_whatever_is_called_later_is_the_callers_work(stage: Stage, inside: Inside):
    """Callbacks, timers, tasks and threads of marked work are marked; what runs them is not, afterwards."""
    mark = a_mark(stage)
    found = inside.call(ways_of_tasks, mark)
    if "eager task" in found and sys.version_info < (3, 12):
        del found["eager task"]
    assert found.pop("ordinary afterwards") == 0
    assert set(found.values()) == {mark["tag"]}, found
    assert len(found) >= 12
    found = inside.call(ways_of_threads, mark)
    assert {name for name, tag in found.items() if not tag} == {
        "executor afterwards",
        "pool afterwards",
        "callback afterwards",
    }


IN_PROCESS = """
import concurrent.futures, json, threading, multiprocessing.pool
from perflab.shadow import scope
def mark():
    found = scope.current()
    return found.tag if found else 0
def permitted():
    return scope.permitted()
class Worker(threading.Thread):
    found = None
    def run(self):
        self.found = mark()
def threads():
    worker = Worker(); worker.start(); worker.join()
    with scope.permit():
        with concurrent.futures.ThreadPoolExecutor(1) as own:
            leaked = own.submit(permitted).result()
    return worker.found, leaked, later.submit(mark).result(), pool.apply(mark), list(pool.imap(call, [1, 2]))
def call(_):
    return mark()
def refused(function):
    try:
        function()
    except Exception as error:
        return type(error).__name__
later = concurrent.futures.ThreadPoolExecutor(1)
pool = multiprocessing.pool.ThreadPool(2)
started = threading.Thread(target=lambda: None); started.start(); started.join()
twice = marked(sys.argv[1], refused, started.start)
found = marked(sys.argv[1], threads)
print(json.dumps([found, later.submit(mark).result(), pool.apply(mark), pool.map(call, [1]), twice]))
"""


def test_workers_belong_to_nobody_and_permits_stay_behind(stage: Stage):
    """A pool's threads are started ordinary even by marked work; a permit is not handed on with a task."""
    headers = stage.marked()
    said = stage.script(IN_PROCESS, headers["tracestate"].partition("=")[2])
    tag = int(trace_id(headers)[:4], 16)
    assert said.stderr == ""
    assert json.loads(said.stdout) == [[tag, False, tag, tag, [tag, tag]], 0, 0, [0], "RuntimeError"]


SCHEDULED = """
import json, sched, threading, time
from perflab.shadow import scope
found, timetable = {}, sched.scheduler(time.monotonic, time.sleep)
def work(name):
    found[name] = scope.current().tag if scope.current() else 0
marked(sys.argv[1], timetable.enter, 0.02, 1, work, ("relative",))
marked(sys.argv[1], timetable.enterabs, time.monotonic() + 0.02, 1, work, (), {"name": "absolute"})
timetable.enter(0.01, 1, work, ("ordinary",))
runner = threading.Thread(target=timetable.run); runner.start(); runner.join()
print(json.dumps(found))
"""


def test_what_a_timetable_does_later_is_the_work_of_who_entered_it(stage: Stage):
    """``sched`` runs it in whatever thread: marked work that is put off is not an ordinary write."""
    headers = stage.marked()
    said = stage.script(SCHEDULED, headers["tracestate"].partition("=")[2])
    tag = int(trace_id(headers)[:4], 16)
    assert said.stderr == ""
    assert json.loads(said.stdout) == {"ordinary": 0, "relative": tag, "absolute": tag}
