"""What the attached processes report, added up: the controller's view of the agents.

`Fleet.receive` takes the bodies agents post; everything else is a question asked of what came in. No I/O.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from perflab.errors import SpanFormatError
from perflab.shadow.ledger import bucket_middle_ns, holes_of

LOST_AFTER_S = 3.0
_NEEDED = (
    "process",
    "service",
    "pid",
    "hooks",
    "uncovered",
    "control",
    "marks",
    "unmarked",
    "claims",
    "sessions",
)


@dataclass(slots=True)
class Member:
    """One attached process: its last report, and when it came."""

    report: dict[str, Any]
    heard_s: float
    latency: Counter[int] = field(default_factory=Counter)

    @property
    def service(self) -> str:
        """Its service's name."""
        return str(self.report["service"])


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
    """All attached processes that report to one controller."""

    def __init__(self) -> None:
        self._members: dict[str, Member] = {}
        self.claims: list[dict[str, Any]] = []
        self.refusals: list[dict[str, Any]] = []
        self.claims_lost = 0

    def receive(self, body: bytes) -> dict[str, Any]:
        """Take one report.

        Raises
        ------
        SpanFormatError
            If the body is not an agent's report.
        """
        try:
            report = json.loads(body)
            missing = [name for name in _NEEDED if name not in report]
            latency = Counter(
                {int(bucket): int(count) for bucket, count in report["unmarked"]["latency"].items()}
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SpanFormatError(f"not an agent's report: {error!r}") from error
        if missing:
            raise SpanFormatError(f"not an agent's report: it lacks {', '.join(missing)}")
        self._members[str(report["process"])] = Member(report, time.monotonic(), latency)
        self.claims.extend({**claim, "service": report["service"]} for claim in report.pop("claims"))
        self.refusals.extend(
            {**refusal, "service": report["service"]} for refusal in report.pop("refusals", [])
        )
        return {"ok": True}

    def services(self) -> set[str]:
        """Return the services that have reported."""
        return {member.service for member in self._members.values()}

    def believing(self, tag: int) -> set[str]:
        """Return the services all of whose processes hold a run for live."""
        believing = {
            member.service for member in self._members.values() if tag in member.report["control"]["live"]
        }
        return believing - {
            member.service for member in self._alive() if tag not in member.report["control"]["live"]
        }

    def lost(self, wanted: Iterable[str]) -> list[str]:
        """Return the services of which no process has reported lately."""
        alive = {member.service for member in self._alive()}
        return [name for name in wanted if name not in alive]

    def holes(self) -> set[str]:
        """Return the holes of every process, as a scenario would name them to accept them."""
        found: set[str] = set()
        for member in self._members.values():
            found |= holes_of(member.service, member.report["hooks"], member.report["uncovered"])
        return found

    def marks(self) -> dict[str, Counter[str]]:
        """Return per service how marks were judged: ``marked``, ``refused: <reason>``."""
        judged: dict[str, Counter[str]] = {}
        for member in self._members.values():
            judged.setdefault(member.service, Counter()).update(member.report["marks"])
        return judged

    def sessions(self) -> list[dict[str, Any]]:
        """Return the logins marked work used, per service."""
        return [
            {**session, "service": member.service}
            for member in self._members.values()
            for session in member.report["sessions"]
        ]

    def outbound(self) -> list[dict[str, Any]]:
        """Return what became of marked calls to peers outside the attached services."""
        calls: Counter[tuple[str, str]] = Counter()
        for member in self._members.values():
            for entry in member.report.get("outbound", []):
                if entry["action"] != "service":
                    calls[entry["name"], entry["action"]] += entry["marked_calls"]
        return [
            {"name": name, "action": action, "marked_calls": n} for (name, action), n in sorted(calls.items())
        ]

    def versions(self) -> dict[str, dict[str, str]]:
        """Return per service the hooked libraries and their versions, and the agent's."""
        return {
            member.service: {
                "perflab": str(member.report.get("agent_version", "")),
                **{name: hook["version"] for name, hook in sorted(member.report["hooks"].items())},
            }
            for member in self._members.values()
        }

    def stepped_aside(self) -> Counter[str]:
        """Return how often hooks failed on ordinary work and let it through."""
        total: Counter[str] = Counter()
        for member in self._members.values():
            total.update(member.report.get("stepped_aside", {}))
        return total

    def real_users(self, service: str) -> Window:
        """Return all requests of real users a service has served since its processes started."""
        latency: Counter[int] = Counter()
        errors = 0
        for member in self._members.values():
            if member.service == service:
                latency.update(member.latency)
                errors += int(member.report["unmarked"]["errors"])
        return Window(latency, errors)

    def _alive(self) -> list[Member]:
        now_s = time.monotonic()
        return [member for member in self._members.values() if now_s - member.heard_s <= LOST_AFTER_S]


def between(later: Window, earlier: Window) -> Window:
    """Return the requests served between two moments."""
    return Window(later.latency - earlier.latency, later.errors - earlier.errors)
