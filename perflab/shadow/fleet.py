"""What the attached processes report, added up: the controller's view of the agents.

`Fleet.receive` takes the bodies agents post; everything else is a question asked of what came in. No I/O.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from perflab.errors import SpanFormatError
from perflab.shadow.ledger import FORMAT, LOST, bucket_middle_ns, holes_of

LOST_AFTER_S = 3.0


class Control(msgspec.Struct, frozen=True):
    """What a process believes of the list of live runs."""

    live: tuple[int, ...]
    age_s: float = 0.0
    problem: str = ""


class Unmarked(msgspec.Struct, frozen=True):
    """Requests of real users a process has served: latency bucket -> how many, and errors."""

    latency: dict[int, int]
    errors: int


class Hook(msgspec.Struct, frozen=True):
    """What became of one hook in a process: ``on``, ``off`` or ``failed``."""

    state: str
    version: str = ""
    reason: str = ""


class Refusal(msgspec.Struct, frozen=True):
    """Marked work that was refused in a process before it was sent."""

    store: str
    what: str
    trace_id: str = ""
    time_ns: int = 0


class Report(msgspec.Struct, frozen=True):
    """What an agent posts (`perflab.shadow.agent`); counters count from the process's start."""

    process: str
    service: str
    pid: int
    control: Control
    hooks: dict[str, Hook]
    uncovered: tuple[str, ...]
    claims: list[dict[str, Any]]
    sessions: list[dict[str, Any]]
    marks: dict[str, int]
    unmarked: Unmarked
    sequence: int = 0
    time_ns: int = 0
    agent_version: str = ""
    host: str = ""
    shadow_consumer: bool = False
    format: int = FORMAT
    claims_lost: int = 0
    refusals: list[Refusal] = []
    outbound: list[dict[str, Any]] = []
    stepped_aside: dict[str, int] = {}


_CALLS = "marked_calls"


@dataclass(frozen=True, slots=True)
class Member:
    """One attached process: its last report, when it came, and what it had counted before we listened."""

    report: Report
    heard_s: float
    before: Report | None
    delivered: frozenset[Hashable]

    @property
    def service(self) -> str:
        """Its service's name."""
        return self.report.service

    def counted(self, of: Callable[[Report], Mapping[Any, int]]) -> Counter[Any]:
        """Return what it has counted since we listen."""
        counted = Counter(of(self.report))
        if self.before is not None:
            counted.subtract(of(self.before))
        return +counted


@dataclass(frozen=True, slots=True)
class Window:
    """Requests of real users in a stretch of time, by latency bucket."""

    latency: Counter[int]
    errors: int

    @property
    def count(self) -> int:
        """How many there were."""
        return self.latency.total()

    def quantile_ms(self, ratio: float) -> float:
        """Return a latency percentile (within 2 %), 0 when there was no request."""
        wanted = ratio * self.count
        seen = 0
        for bucket in sorted(self.latency):
            seen += self.latency[bucket]
            if seen >= wanted:
                return bucket_middle_ns(bucket) / 1e6
        return 0.0

    def summary(self) -> dict[str, float]:
        """Return what reports show of it."""
        return {
            "n": self.count,
            "p50_ms": self.quantile_ms(0.5),
            "p99_ms": self.quantile_ms(0.99),
            "error_ratio": self.errors / self.count if self.count else 0.0,
        }


class Fleet:
    """All attached processes that report to one controller.

    What an agent had counted before this controller first heard of it belongs to earlier runs and is left
    out; so are refusals from then. A process that starts while we listen is counted from its start.

    Parameters
    ----------
    clock : callable
        Returns monotonic time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began_s = clock()
        self._members: dict[str, Member] = {}
        self.claims: list[dict[str, Any]] = []
        self.refusals: list[dict[str, Any]] = []

    def receive(self, body: bytes) -> dict[str, Any]:
        """Take one report.

        A report that arrives again, or after a newer one of its process, adds nothing: what it had to say
        that an agent took for undelivered is in a newer one too.

        Raises
        ------
        SpanFormatError
            If the body is not an agent's report.
        """
        try:
            report = msgspec.json.decode(body, type=Report, strict=False)
            for entries in (report.sessions, report.outbound):
                _calls(entries)
        except (msgspec.DecodeError, ValueError, TypeError) as error:
            raise SpanFormatError(f"not an agent's report: {error}") from error
        known = self._members.get(report.process)
        if known is not None and 0 < report.sequence <= known.report.sequence:
            return {"ok": True}
        again: frozenset[Hashable] = known.delivered if known is not None else frozenset()
        delivered = []
        for kept, found in ((self.claims, report.claims), (self.refusals, self._recent(report))):
            for item in found:
                identity = tuple(sorted((name, str(value)) for name, value in item.items()))
                delivered.append(identity)
                if identity not in again:
                    kept.append({**item, "service": report.service})
        before = known.before if known is not None else report if report.sequence > 1 else None
        self._members[report.process] = Member(report, self._clock(), before, frozenset(delivered))
        return {"ok": True}

    def _recent(self, report: Report) -> list[dict[str, Any]]:
        """Return the refusals of a report that are not older than this controller."""
        oldest_ns = report.time_ns - int((self._clock() - self._began_s) * 1e9)
        return [
            msgspec.structs.asdict(refusal)
            for refusal in report.refusals
            if not report.time_ns or refusal.time_ns >= oldest_ns
        ]

    def lost_marks(self) -> list[dict[str, Any]]:
        """Return where shadow and ordinary work could not be told apart."""
        return [refusal for refusal in self.refusals if refusal["store"] == LOST]

    @property
    def claims_lost(self) -> int:
        """How many claims the agents had no room to keep."""
        return sum(
            member.report.claims_lost - (member.before.claims_lost if member.before else 0)
            for member in self._members.values()
        )

    def services(self) -> set[str]:
        """Return the services that have reported."""
        return {member.service for member in self._members.values()}

    def believing(self, tag: int) -> set[str]:
        """Return the services all of whose living processes hold a run for live."""
        believing = {member.service for member in self._members.values() if tag in member.report.control.live}
        return believing - {
            member.service for member in self._alive() if tag not in member.report.control.live
        }

    def lost(self, wanted: Iterable[str]) -> list[str]:
        """Return the services of which no process has reported lately."""
        alive = {member.service for member in self._alive()}
        return [name for name in wanted if name not in alive]

    def holes(self) -> set[str]:
        """Return the holes of every process, as a scenario would name them to accept them."""
        found: set[str] = set()
        for member in self._members.values():
            found |= self._holes(member)
        return found

    @staticmethod
    def _holes(member: Member) -> set[str]:
        states = {name: {"state": hook.state} for name, hook in member.report.hooks.items()}
        return holes_of(member.service, states, member.report.uncovered)

    def marks(self) -> dict[str, Counter[str]]:
        """Return per service how marks were judged: ``marked``, ``refused: <reason>``."""
        judged: dict[str, Counter[str]] = {}
        for member in self._members.values():
            counted = member.counted(lambda report: report.marks)
            judged.setdefault(member.service, Counter()).update(counted)
        return judged

    def sessions(self) -> list[dict[str, Any]]:
        """Return the logins marked work used, per service."""
        return [
            {**dict(session), _CALLS: calls, "service": member.service}
            for member in self._members.values()
            for session, calls in member.counted(lambda report: _calls(report.sessions)).items()
        ]

    def outbound(self) -> list[dict[str, Any]]:
        """Return what became of marked calls to peers outside the attached services."""
        calls: Counter[Any] = Counter()
        for member in self._members.values():
            calls.update(member.counted(lambda report: _calls(report.outbound)))
        return [
            {**dict(call), _CALLS: n}
            for call, n in sorted(calls.items(), key=str)
            if dict(call).get("action") != "service"
        ]

    def agents(self) -> list[dict[str, Any]]:
        """Return a row per process: who it is, what it believes, and what it does not cover.

        ``live`` are the tags of the runs it holds for live, ``heard_s`` is how long ago it said so.
        """
        now_s = self._clock()
        return [
            {
                "service": member.service,
                "pid": member.report.pid,
                "host": member.report.host,
                "agent_version": member.report.agent_version,
                "shadow_consumer": member.report.shadow_consumer,
                "heard_s": round(now_s - member.heard_s, 3),
                "control_age_s": member.report.control.age_s,
                "live": sorted(member.report.control.live),
                "problem": member.report.control.problem,
                "hooks": {
                    name: {"state": hook.state, "version": hook.version}
                    for name, hook in sorted(member.report.hooks.items())
                },
                "holes": sorted(self._holes(member)),
                "marks": member.report.marks,
                "stepped_aside": member.report.stepped_aside,
            }
            for member in sorted(self._members.values(), key=lambda one: (one.service, one.report.pid))
        ]

    def versions(self) -> dict[str, dict[str, str]]:
        """Return per service the hooked libraries and their versions, and the agent's.

        Where processes of a service differ, all versions are named: ``0.1.0, 0.2.0``.
        """
        found: dict[str, dict[str, set[str]]] = {}
        for member in self._members.values():
            of_service = found.setdefault(member.service, {})
            of_service.setdefault("perflab", set()).add(member.report.agent_version)
            for name, hook in member.report.hooks.items():
                of_service.setdefault(name, set()).add(hook.version)
        return {
            service: {name: ", ".join(sorted(versions)) for name, versions in sorted(of_service.items())}
            for service, of_service in found.items()
        }

    def strange_formats(self) -> dict[str, set[int]]:
        """Return the services whose agents report in another format than this controller reads."""
        found: dict[str, set[int]] = {}
        for member in self._members.values():
            if member.report.format != FORMAT:
                found.setdefault(member.service, set()).add(member.report.format)
        return found

    def processes(self) -> dict[str, int]:
        """Return how many living processes of each service report."""
        return dict(Counter(member.service for member in self._alive()))

    def uncovered(self) -> dict[str, set[str]]:
        """Return per service the drivers it imported that no hook covers."""
        found: dict[str, set[str]] = {}
        for member in self._members.values():
            found.setdefault(member.service, set()).update(member.report.uncovered)
        return found

    def hooks(self) -> dict[str, dict[str, dict[str, str]]]:
        """Return per service what became of each hook: its ``state``, ``version`` and ``reason``."""
        found: dict[str, dict[str, dict[str, str]]] = {}
        for member in self._members.values():
            for name, hook in member.report.hooks.items():
                told = {"state": hook.state, "version": hook.version, "reason": hook.reason}
                known = found.setdefault(member.service, {}).get(name)
                if known is None or known["state"] == "on":  # of several processes the worst counts
                    found[member.service][name] = told
        return found

    def stepped_aside(self) -> Counter[str]:
        """Return how often hooks failed on ordinary work and let it through."""
        total: Counter[str] = Counter()
        for member in self._members.values():
            total.update(member.counted(lambda report: report.stepped_aside))
        return total

    def real_users(self, service: str) -> Window:
        """Return all requests of real users a service has served since its processes started."""
        latency: Counter[int] = Counter()
        errors = 0
        for member in self._members.values():
            if member.service == service:
                latency.update(member.report.unmarked.latency)
                errors += member.report.unmarked.errors
        return Window(latency, errors)

    def _alive(self) -> list[Member]:
        now_s = self._clock()
        return [member for member in self._members.values() if now_s - member.heard_s <= LOST_AFTER_S]


def between(later: Window, earlier: Window) -> Window:
    """Return the requests served between two moments."""
    return Window(later.latency - earlier.latency, later.errors - earlier.errors)


def _calls(entries: Iterable[Mapping[str, Any]]) -> Counter[Any]:
    """Count calls by what else their entries say."""
    calls: Counter[Any] = Counter()
    for entry in entries:
        said = tuple(sorted((name, value) for name, value in entry.items() if name != _CALLS))
        calls[said] += int(entry.get(_CALLS, 0))
    return calls
