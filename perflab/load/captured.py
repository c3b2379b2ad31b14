"""Values taken from answers, waiting to be used by later requests."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from perflab.errors import TrafficError
from perflab.load.plan import Captured
from perflab.traffic.scenario import Scenario

MOST = 10_000
"""Answers remembered per endpoint; the oldest used ones are forgotten first."""


class CapturedValues:
    """A bounded pool of what answers gave.

    Values of one answer stay together: a request that needs two names gets both from the same answer
    where one endpoint captures both. Values not used yet go first, oldest first; when there are none, used
    ones are taken again in turn.

    Parameters
    ----------
    scenario : Scenario
        Its endpoints say who captures what.
    start : iterable of Captured
        Values to begin with; those of endpoints the scenario does not have are ignored.
    """

    def __init__(self, scenario: Scenario, start: Iterable[Captured] = ()) -> None:
        self._producers = scenario.producers()
        rank = {at: place for place, at in enumerate(scenario.order())}
        self._first = {name: min(ends, key=rank.__getitem__) for name, ends in self._producers.items()}
        self._fresh: dict[int, deque[dict[str, Any]]] = {}
        self._used: dict[int, deque[dict[str, Any]]] = {}
        for at in {at for ends in self._producers.values() for at in ends}:
            self._fresh[at] = deque(maxlen=MOST)
            self._used[at] = deque(maxlen=MOST)
        names = {endpoint.name: at for at, endpoint in enumerate(scenario.endpoints)}
        for item in start:
            if names.get(item.endpoint) in self._fresh:
                self.put(names[item.endpoint], item.values)

    def put(self, endpoint: int, values: dict[str, Any]) -> None:
        """Remember what one answer of an endpoint gave."""
        if values:
            self._fresh[endpoint].append(values)

    def missing(self, needs: Iterable[str]) -> int | None:
        """Return the endpoint to ask for what is needed and not there; None if all is there.

        Following the answer again and again ends: each endpoint it names comes earlier in
        `Scenario.order` than the one that needed it.
        """
        for name in sorted(needs):
            if not any(self._fresh[at] or self._used[at] for at in self._producers[name]):
                return self._first[name]
        return None

    def draw(self, needs: Iterable[str]) -> dict[str, Any]:
        """Return a value for every name needed.

        Raises
        ------
        TrafficError
            If there is none for one of them.
        """
        drawn: dict[str, Any] = {}
        for name in sorted(needs):
            if name not in drawn:
                drawn = {**self._next(name), **drawn}
        return drawn

    def _next(self, name: str) -> dict[str, Any]:
        for pool in (self._fresh, self._used):
            for at in self._producers[name]:
                if pool[at]:
                    values = pool[at].popleft()
                    self._used[at].append(values)
                    return values
        raise TrafficError(f"no value has been captured for ${{{name}}}")
