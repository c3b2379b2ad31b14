"""The watchdog: what it stops a run for, and what it notes, on scripted reports of agents."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

from perflab.config import GuardRule, RealUsers, Secret, Target
from perflab.load.guard import Guard
from perflab.load.plan import Progress
from perflab.load.record import Record
from perflab.load.watchdog import Watchdog, finish_in_thread
from perflab.load.window import Histogram
from perflab.shadow.audit.canary import Leak
from perflab.shadow.fleet import Fleet
from perflab.shadow.ledger import LOST, bucket_of

MS = 1_000_000
TARGET = Target(
    addresses=("127.0.0.1:1",),
    control="/nowhere",
    control_key=Secret(env="KEY"),
    services={"gateway": ("127.0.0.1:1",)},
    real_users=RealUsers("gateway"),
)
LEAK = Leak("postgres", "orders", "ab" * 16, "insert", 1, "plc-...")


class ScriptedAudit:
    """Gives the leaks it was told to, poll by poll."""

    def __init__(self, *polls: list[Leak]) -> None:
        self._polls = list(polls)

    def poll(self) -> list[Leak]:
        return self._polls.pop(0) if self._polls else []


class ScriptedGenerator:
    """Remembers why it was stopped."""

    def __init__(self) -> None:
        self.stopped = ""

    async def stop(self, reason: str) -> None:
        self.stopped = reason


class Watched:
    """A watchdog with everything around it scripted."""

    def __init__(self, *rules: GuardRule, polls: tuple[list[Leak], ...] = ()) -> None:
        self.fleet, self.record = Fleet(), Record()
        self.generator: Any = ScriptedGenerator()
        self.guards = [Guard(rule) for rule in rules]
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.killed = 0
        self.audit: Any = ScriptedAudit(*polls)
        self.latency: dict[str, int] = {}
        self.killed_by = ""
        self.dog = Watchdog(
            TARGET, self.guards, self.fleet, self.record, self.event, self.kill, lambda: self.killed_by
        )

    def event(self, what: str, /, **details: Any) -> None:
        self.events.append((what, details))

    def kill(self) -> None:
        self.killed += 1

    def serve(self, latency_ms: float, count: int) -> None:
        """Report so many more requests of real users with a latency."""
        bucket = str(bucket_of(round(latency_ms * MS)))
        self.latency[bucket] = self.latency.get(bucket, 0) + count
        report = {
            "process": "p1",
            "service": "gateway",
            "pid": 1,
            "hooks": {},
            "uncovered": [],
            "control": {"live": [7]},
            "marks": {},
            "claims": [],
            "sessions": [],
            "unmarked": {"latency": self.latency, "errors": 0},
        }
        self.fleet.receive(json.dumps(report).encode())

    def refuse(self, store: str, what: str) -> None:
        """Report that shadow work was refused."""
        self.fleet.refusals.append({"service": "gateway", "store": store, "what": what, "trace_id": "ab"})

    async def watch(self, seconds: float, latency_ms: float | None = None) -> None:
        """Watch for a while; meanwhile real users are served at a latency."""
        watching = asyncio.create_task(self.dog.watch(self.generator, self.audit))
        deadline = asyncio.get_running_loop().time() + seconds
        while not watching.done() and asyncio.get_running_loop().time() < deadline:
            if latency_ms is not None:
                self.serve(latency_ms, 5)
            await asyncio.wait([watching], timeout=0.1)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


def test_a_leak_kills_the_run_and_stops_sending() -> None:
    """A leak found while load is sent kills the run everywhere, stops the generator and is noted."""
    # GIVEN an audit whose second poll finds a leak
    watched = Watched(polls=([], [LEAK]))
    # WHEN the run is watched
    asyncio.run(watched.watch(5.0))
    # THEN it was stopped within its two seconds, killed once, and noted
    assert "postgres orders" in watched.generator.stopped
    assert watched.killed == 1
    assert watched.record.leaks == [LEAK]
    assert [details["trace_id"] for what, details in watched.events if what == "leak"] == ["ab" * 16]


def test_a_lost_mark_kills_the_run_and_stops_sending() -> None:
    """Where shadow and real work cannot be told apart the run ends; other refusals do not end it."""
    # GIVEN a run in which shadow work was refused at a store
    watched = Watched()
    watched.refuse("orders", "not one of the target's stores")
    asyncio.run(watched.watch(1.5))
    assert (watched.generator.stopped, watched.killed) == ("", 0)
    # WHEN a service says that it lost the mark
    watched.refuse(LOST, "took from a queue what may be anybody's")
    asyncio.run(watched.watch(5.0))
    # THEN the run is stopped and killed, and that is noted
    assert watched.generator.stopped == (
        "service 'gateway' lost the mark: took from a queue what may be anybody's"
    )
    assert watched.killed == 1
    assert ("mark lost", "gateway") in [(what, told.get("service")) for what, told in watched.events]


def test_a_run_that_was_killed_from_outside_stops_sending() -> None:
    """Whoever killed the run is noted once, and the generator stops."""
    # GIVEN a run that somebody killed
    watched = Watched()
    watched.killed_by = "ann@here"
    # WHEN it is watched
    asyncio.run(watched.watch(5.0))
    # THEN it stops for that
    assert watched.generator.stopped == "the run was killed by ann@here"
    assert watched.record.killed_by == "ann@here"
    assert [details for what, details in watched.events if what == "killed"] == [{"by": "ann@here"}]


def test_slow_real_users_stop_the_run() -> None:
    """Real users above their limit for enough windows stop the run, with value and limit."""
    # GIVEN a limit of 100 ms for real users, in one window
    rule = GuardRule(of="real_users", metric="p99_ms", below=100.0, windows=1)
    watched = Watched(rule)
    watched.serve(10, 5)
    # WHEN they are served in 400 ms
    asyncio.run(watched.watch(5.0, latency_ms=400))
    # THEN the guard tripped and the worst window was noted
    assert watched.record.breach is not None
    assert watched.record.breach.rule == rule
    assert "p99" in watched.generator.stopped
    assert watched.record.worst["real_users p99_ms"] > 350


def test_real_users_as_before_stop_nothing() -> None:
    """Real users who are served as before the run trip no factor guard."""
    # GIVEN a guard against their own baseline, taken at 20 ms
    watched = Watched(GuardRule(of="real_users", metric="p99_ms", factor=3.0, slack=10.0, windows=1))
    watched.serve(20, 5)

    async def rest_and_watch() -> None:
        resting = asyncio.create_task(watched.dog.rest("before", 0.5))
        await asyncio.sleep(0.1)
        watched.serve(20, 20)
        await resting
        # WHEN they go on being served in 20 ms
        await watched.watch(2.5, latency_ms=20)

    asyncio.run(rest_and_watch())
    # THEN nothing was stopped, and before is noted
    assert watched.generator.stopped == ""
    assert watched.record.real_users["before"]["n"] == 20


def test_the_shadow_traffic_is_guarded_too() -> None:
    """A guard on the generated requests reads the generator's progress."""
    # GIVEN a limit on shadow errors
    watched = Watched(GuardRule(of="shadow", metric="error_ratio", below=0.1, windows=1))
    slow = Histogram()
    for _ in range(20):
        slow.add(5 * MS)
    counted = {"due": 20, "offered": 20, "sent": 20, "missed": 0, "late": 0, "substituted": 0}
    progress = Progress(
        elapsed_ns=MS,
        **counted,
        in_flight=0,
        waiting=0,
        outcomes={"reset": 20},
        errors=20,
        latencies=slow.pairs(),
        outstanding=[],
    )
    watched.dog.feed(progress)
    # WHEN the run is watched
    asyncio.run(watched.watch(5.0))
    # THEN it was stopped for them
    assert watched.record.breach is not None
    assert watched.record.breach.rule.of == "shadow"


def test_a_silent_service_is_noted_once() -> None:
    """A service whose agent never reports is noted as lost, once."""
    # GIVEN no report at all
    watched = Watched()
    # WHEN the run is watched
    asyncio.run(watched.watch(2.0))
    # THEN it is lost, once
    assert watched.record.lost == {"gateway"}
    assert [details["service"] for what, details in watched.events if what == "service lost"] == ["gateway"]


def test_a_service_that_reports_again_is_noted() -> None:
    """A lost service that reports again is lost no more, and its silence is remembered."""
    # GIVEN a service that was lost
    watched = Watched()
    watched.dog.note_lost()
    # WHEN it reports
    watched.serve(10, 1)
    watched.dog.note_lost()
    # THEN it is back
    assert watched.record.lost == set()
    assert watched.record.silent == {"gateway"}
    assert [what for what, _ in watched.events] == ["service lost", "service back"]


def test_a_guard_that_cannot_see_real_users_stops_the_run() -> None:
    """When the service in which real users are measured falls silent, a guard on them trips."""
    # GIVEN a guard on real users, and no report of their service
    watched = Watched(GuardRule(of="real_users", metric="error_ratio", below=0.1, windows=1))
    # WHEN the run is watched
    asyncio.run(watched.watch(5.0))
    # THEN it was stopped, for want of a measurement
    assert "nothing could be measured of error ratio of real users" in watched.generator.stopped


def test_leaks_are_looked_for_after_a_guard_has_tripped() -> None:
    """While the last requests end, a leak still kills the run."""
    # GIVEN a guard that trips after a second, and an audit whose fifth poll finds a leak
    rule = GuardRule(of="real_users", metric="error_ratio", below=0.1, windows=1)
    watched = Watched(rule, polls=([], [], [], [], [LEAK]))
    # WHEN the run is watched
    asyncio.run(watched.watch(8.0))
    # THEN both were noted, and the run was killed
    assert watched.record.breach is not None
    assert watched.record.leaks == [LEAK]
    assert watched.killed == 1


def test_a_step_on_a_thread_is_waited_for_when_cancelled() -> None:
    """What is cancelled half way ends before its caller goes on."""
    begun, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def step() -> None:
        begun.set()
        may_end.wait(10)
        ended.set()

    async def cancel_half_way() -> bool:
        # GIVEN a step under way
        task = asyncio.create_task(finish_in_thread(step))
        await asyncio.to_thread(begun.wait, 10)
        # WHEN it is cancelled
        task.cancel()
        asyncio.get_running_loop().call_later(0.1, may_end.set)
        await asyncio.wait([task])
        return task.cancelled()

    # THEN the step has ended by the time the task has
    assert asyncio.run(cancel_half_way())
    assert ended.is_set()
