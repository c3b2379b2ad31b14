"""What a run finds out while it goes on, and how ``run.json`` writes it down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from perflab.config import Target
from perflab.errors import LoadError
from perflab.load.guard import Breach, Guard
from perflab.load.plan import Progress, Result
from perflab.shadow.audit.canary import Leak
from perflab.shadow.preflight import Hole


@dataclass(slots=True)
class Record:
    """What a run has found out so far.

    Parameters
    ----------
    phases : list of dict
        ``name start_ns end_ns``, in order.
    holes : list of Hole
        Open ones that forbid the run.
    breach : Breach, optional
        The guard that stopped it.
    result : Result, optional
        What the generator counted; None if it never came to its end.
    progress : Progress, optional
        The last line of its progress: what is known of a run that was broken off.
    real_users : dict of str to dict
        ``before``, ``during``, ``after``: ``n p50_ms p99_ms error_ratio``.
    lost : set of str
        Services whose agents are silent.
    silent : set of str
        Services whose agents were silent for a while, or still are.
    refused_marks : dict of str to int
        ``<service>: <why>`` -> marks refused on the way in, without those of accepted holes.
    leaks : list of Leak
        Found while the run went on.
    killed_by : str
        Who ended it by the kill switch, "" if nobody.
    canaries : int
        Requests sent whose endpoint writes one into them.
    isolation : dict
        The proof, as ``isolation.json`` has it.
    thresholds : list of dict
        From `perflab.load.verdict.judge_thresholds`.
    worst : dict of str to float
        ``<of> <metric>`` -> the worst window a guard saw.
    """

    phases: list[dict[str, Any]] = field(default_factory=list)
    holes: list[Hole] = field(default_factory=list)
    breach: Breach | None = None
    result: Result | None = None
    progress: Progress | None = None
    real_users: dict[str, dict[str, float]] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    silent: set[str] = field(default_factory=set)
    refused_marks: dict[str, int] = field(default_factory=dict)
    leaks: list[Leak] = field(default_factory=list)
    killed_by: str = ""
    canaries: int = 0
    isolation: dict[str, Any] = field(default_factory=dict)
    thresholds: list[dict[str, Any]] = field(default_factory=list)
    worst: dict[str, float] = field(default_factory=dict)

    def as_info(self, target: Target, guards: Sequence[Guard]) -> dict[str, Any]:
        """Return its part of ``run.json``."""
        return {
            "phases": self.phases,
            "requests": _requests(self.result, self.progress),
            "generator": msgspec.structs.asdict(self.result) if self.result else {},
            "thresholds": self.thresholds,
            "guards": [self._guard_row(guard) for guard in guards],
            "real_users": self.real_users,
            "services": [{"name": name, "state": self._state(name)} for name in sorted(target.services)],
            "refused_marks": self.refused_marks,
            "holes": [hole.as_dict() for hole in self.holes],
        }

    def _state(self, service: str) -> str:
        if service in self.lost:
            return "lost"
        return "silent for a while" if service in self.silent else "attached"

    def _guard_row(self, guard: Guard) -> dict[str, Any]:
        try:
            limit: float | None = guard.limit
        except LoadError:  # a factor whose baseline was never taken
            limit = None
        return {
            "of": guard.rule.of,
            "metric": guard.rule.metric,
            "limit": limit,
            "worst": self.worst.get(f"{guard.rule.of} {guard.rule.metric}"),
            "tripped": self.breach is not None and self.breach.rule == guard.rule,
        }


def _requests(result: Result | None, progress: Progress | None) -> dict[str, Any]:
    """Count requests: all of them, or those known of when the run was broken off."""
    known = result or progress
    outcomes = known.outcomes if known else {}
    errors = {name: count for name, count in outcomes.items() if name != "answered"}
    return {
        **{name: getattr(known, name, 0) for name in ("offered", "sent", "late", "missed")},
        "answered": outcomes.get("answered", 0),
        "errors": sum(errors.values()),
        "error_outcomes": errors,
    }
