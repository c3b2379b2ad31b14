"""The two sides of a comparison, and how both are measured by the same number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from perflab.analysis.bootstrap import paired_seeds
from perflab.analysis.criticalpath import CriticalPath, critical_path
from perflab.analysis.drawn import ERRORS, Pair, draw_entity, draw_requests
from perflab.analysis.entity import operation_name
from perflab.analysis.latency import Requests, take_requests
from perflab.trace.schema import GENERATOR_SERVICE

ALL = "all"
EXCLUSIVE, SHARE = "exclusive", "share"
OF_ENTITIES = (EXCLUSIVE, SHARE)
"""What an entity can be measured by: exclusive time per request, share of the requests' summed duration."""


@dataclass(frozen=True, eq=False)
class Side:
    """One of two sides: its critical paths, its requests, and whether the load engine generated these."""

    path: CriticalPath
    requests: Requests
    is_generated: bool

    @classmethod
    def of(cls, spans: pd.DataFrame) -> Side:
        """Analyse a span table."""
        requests, _, is_generated = take_requests(spans)
        return cls(critical_path(spans), requests, is_generated)

    @property
    def entries(self) -> set[str]:
        """The entry operations of the requests whose latency is measured."""
        return {self._entry_of(name) for name in set(self.requests.endpoint.tolist())}

    @property
    def entities(self) -> set[str]:
        """The entities on critical paths."""
        return set(self.path.table["entity"])

    def requests_of(self, entry: str) -> Requests:
        """Return the requests of one entry operation, or all."""
        if entry == ALL:
            return self.requests
        names = {name: self._entry_of(name) == entry for name in set(self.requests.endpoint.tolist())}
        return self.requests.take(np.array([names[name] for name in self.requests.endpoint], dtype=bool))

    def _entry_of(self, endpoint: str) -> str:
        return operation_name(GENERATOR_SERVICE, endpoint) if self.is_generated else endpoint


def measure_requests(before: Side, after: Side, entry: str, metrics: Sequence[str]) -> dict[str, Pair]:
    """Measure the requests of both sides.

    Parameters
    ----------
    before, after : Side
        Both sides.
    entry : str
        An entry operation, or "all".
    metrics : sequence of str
        Of `perflab.analysis.drawn.METRICS`.

    Returns
    -------
    dict of str to Pair
    """
    chosen = [side.requests_of(entry) for side in (before, after)]
    seeds = paired_seeds(*[(len(side.row), int(side.waited_ns.sum())) for side in chosen])
    old, new = (draw_requests(side, metrics, seed) for side, seed in zip(chosen, seeds, strict=True))
    return {name: Pair(old[name], new[name], "ratio" if name == ERRORS else "ms") for name in metrics}


def measure_entity(before: Side, after: Side, entry: str, entity: str) -> dict[str, Pair]:
    """Measure an entity on the critical paths of both sides.

    Parameters
    ----------
    before, after : Side
        Both sides.
    entry : str
        An entry operation, or "all".
    entity : str
        An operation or an edge.

    Returns
    -------
    dict of str to Pair
        By "exclusive" and "share".
    """
    paths = (before.path, after.path)
    masks = [
        np.ones(len(path.entries), dtype=bool)
        if entry == ALL
        else np.asarray(path.entries["entry"].array == entry)
        for path in paths
    ]
    durations = [
        path.entries["duration_ns"].to_numpy()[mask] for path, mask in zip(paths, masks, strict=True)
    ]
    seeds = paired_seeds(*[(len(side), int(side.sum())) for side in durations])
    old, new = (
        draw_entity(path, mask, entity, seed) for path, mask, seed in zip(paths, masks, seeds, strict=True)
    )
    return {EXCLUSIVE: Pair(old[0], new[0], "ms"), SHARE: Pair(old[1], new[1], "ratio")}
