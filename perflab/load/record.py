"""What a run finds out while it goes on, and how ``run.json`` writes it down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from perflab.config import Target
from perflab.errors import LoadError
from perflab.load.guard import Breach, Guard
from perflab.load.plan import Result
from perflab.shadow.canary import Leak
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
        What the generator counted; None if it never started.
    real_users : dict of str to dict
        ``before``, ``during``, ``after``: ``n p50_ms p99_ms error_ratio``.
    lost : set of str
        Services whose agents fell silent.
    leaks : list of Leak
        Found while the run went on.
    canaries : int
        Requests sent that carried one.
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
    real_users: dict[str, dict[str, float]] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    leaks: list[Leak] = field(default_factory=list)
    canaries: int = 0
    isolation: dict[str, Any] = field(default_factory=dict)
    thresholds: list[dict[str, Any]] = field(default_factory=list)
    worst: dict[str, float] = field(default_factory=dict)

    def as_info(self, target: Target, guards: Sequence[Guard]) -> dict[str, Any]:
        """Return its part of ``run.json``."""
        return {
            "phases": self.phases,
            "requests": _requests(self.result),
            "generator": msgspec.structs.asdict(self.result) if self.result else {},
            "thresholds": self.thresholds,
            "guards": [self._guard_row(guard) for guard in guards],
            "real_users": self.real_users,
            "services": [
                {"name": name, "state": "lost" if name in self.lost else "attached"}
                for name in sorted(target.services)
            ],
            "holes": [hole.as_dict() for hole in self.holes],
        }

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


def _requests(result: Result | None) -> dict[str, Any]:
    counted = ("offered", "sent", "answered", "late", "missed")
    errors = result.errors if result else {}
    return {
        **{name: getattr(result, name) if result else 0 for name in counted},
        "errors": sum(errors.values()),
        "error_outcomes": errors,
    }
