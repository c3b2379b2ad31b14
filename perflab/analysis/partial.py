"""Sums over critical paths that add up: of parts of a table too large for memory, of hosts, of runs.

What is kept grows with the entities, not with the traces: per entry operation and entity the calls, the time,
a histogram of it, the traces with most of it, and the time in each of a thousand equal slices of the whole,
which the intervals are made of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from perflab.analysis.bootstrap import Resampling
from perflab.analysis.entity import COLUMNS
from perflab.analysis.histogram import Histograms
from perflab.analysis.pathtable import EXEMPLARS, QUANTILES, Sums, Walked, request_table
from perflab.analysis.ranking import ALL, add_estimates
from perflab.analysis.summing import most_per_group, sum_by
from perflab.analysis.walk import ON_PATH
from perflab.units import NS_PER_MS

Int64s = npt.NDArray[np.int64]

SLICES = 1024
"""Equal parts of the time, between which an interval's blocks are cut."""

_MERGED_AT_ONCE = 16


@dataclass(frozen=True, order=True)
class _Exemplar:
    """A trace with much of an entity's time: more comes first, then the earlier."""

    less_ns: int
    start_ns: int
    trace_id: str
    span_id: int


class PathSums:
    """Sums over the critical paths of walked traces.

    Parameters
    ----------
    begin_ns, end_ns : int
        From when to when requests begin. One that begins outside counts for the first or the last slice.

    Attributes
    ----------
    counts : dict of str to int
        As ``CriticalPath.counts``, added up.
    entries : list of str
        Entry operations.
    """

    def __init__(self, begin_ns: int, end_ns: int) -> None:
        self.begin_ns, self.end_ns = begin_ns, max(end_ns, begin_ns)
        self.counts: dict[str, int] = {}
        self.entries: list[str] = []
        self._width_ns = (self.end_ns - self.begin_ns) // SLICES + 1
        self._entry_of: dict[str, int] = {}
        self._entities: list[tuple[str, ...]] = []
        self._entity_of: dict[str, int] = {}
        self._pairs: list[tuple[int, int]] = []
        self._pair_of: dict[tuple[int, int], int] = {}
        self._sums = np.zeros(
            (0, 4), dtype=np.int64
        )  # calls, exclusive ns, covered ns, requests of each pair
        self._slices = np.zeros((0, SLICES), dtype=np.int64)  # exclusive ns of each pair
        self._requests = np.zeros((0, 2, SLICES), dtype=np.int64)  # how many, and ns, of each entry
        self._times = [Histograms.of(np.zeros(0, dtype=np.int64))]  # of calls, by pair
        self._latencies = list(self._times)  # of requests, by entry
        self._exemplars: list[list[_Exemplar]] = []

    @property
    def requests(self) -> int:
        """Requests added."""
        return int(self._requests[:, 0].sum())

    def add(self, walked: Walked, counts: dict[str, int]) -> None:
        """Add walked traces.

        Parameters
        ----------
        walked : Walked
            Traces none of which was added before.
        counts : dict of str to int
            As `perflab.analysis.traversal.Traversal.counts` has them.
        """
        for name, count in counts.items():
            self.counts[name] = self.counts.get(name, 0) + count
        requests = request_table(walked)
        names = requests["entry"].array.categories.tolist()
        entry = np.array([self._number_entry(name) for name in names], dtype=np.int64)
        entry_of: Int64s = entry[requests["entry"].array.codes] if names else np.zeros(0, dtype=np.int64)
        begun_ns, duration_ns = requests["start_ns"].to_numpy(), requests["duration_ns"].to_numpy()
        at = np.clip((begun_ns - self.begin_ns) // self._width_ns, 0, SLICES - 1)
        slices = entry_of * SLICES + at
        shape = self._requests[:, 0].shape
        self._requests[:, 0] += np.bincount(slices, minlength=shape[0] * SLICES).reshape(shape)
        self._requests[:, 1] += sum_by(slices, duration_ns, shape[0] * SLICES).reshape(shape)
        _collect(self._latencies, Histograms.of(duration_ns, entry_of))

        sums = walked.sums(ON_PATH)
        numbers = self._number_pairs(walked, sums, entry_of)
        width = walked.entities.size
        pair = numbers[entry_of[sums.request] * width + sums.entity]
        pairs = len(self._pairs)
        self._sums[:, 0] += sum_by(pair, sums.calls, pairs)
        self._sums[:, 1] += sum_by(pair, sums.exclusive_ns, pairs)
        self._sums[:, 3] += np.bincount(pair, minlength=pairs)
        in_slices = sum_by(pair * SLICES + at[sums.request], sums.exclusive_ns, pairs * SLICES)
        self._slices += in_slices.reshape(pairs, SLICES)
        self._add_exemplars(requests, pair, sums)

        rows = walked.rows(ON_PATH)
        pair_of_row = numbers[entry_of[walked.request[rows]] * width + walked.entities.code[rows]]
        covered_ns = walked.walk.covered_ns[rows]
        covering = np.flatnonzero(covered_ns)
        np.add.at(self._sums[:, 2], pair_of_row[covering], covered_ns[covering])
        _collect(self._times, Histograms.of(walked.walk.exclusive_ns[rows], pair_of_row))

    def merge(self, other: PathSums) -> None:
        """Add what another has summed over other traces.

        Parameters
        ----------
        other : PathSums
            Over the same time: its slices are these.
        """
        if (other.begin_ns, other.end_ns) != (self.begin_ns, self.end_ns):
            raise ValueError("sums over different times have different slices")
        for name, count in other.counts.items():
            self.counts[name] = self.counts.get(name, 0) + count
        entry = np.array([self._number_entry(name) for name in other.entries], dtype=np.int64)
        np.add.at(self._requests, entry, other._requests)
        entity = [self._number_entity(row) for row in other._entities]
        pair = np.array(
            [
                self._number_pair(int(entry[of_entry]), entity[of_entity])
                for of_entry, of_entity in other._pairs
            ],
            dtype=np.int64,
        )
        self._grow()
        np.add.at(self._sums, pair, other._sums)
        np.add.at(self._slices, pair, other._slices)
        _collect(self._times, Histograms.merge(*other._times).regroup(pair))
        _collect(self._latencies, Histograms.merge(*other._latencies).regroup(entry))
        for mine, theirs in zip(pair.tolist(), other._exemplars, strict=True):
            self._keep(mine, theirs)

    def weights(self) -> dict[str, tuple[int, int]]:
        """Return the requests of each entry operation, and their summed duration in ns."""
        return {
            name: (int(self._requests[at, 0].sum()), int(self._requests[at, 1].sum()))
            for at, name in enumerate(self.entries)
        }

    def latency(self, quantile: float, entry: str | None = None) -> float:
        """Return a quantile of the duration of requests in ns, to 0.2 %; NaN where there are none."""
        found = Histograms.merge(*self._latencies)
        if entry is None:
            return found.regroup(np.zeros(len(self.entries), dtype=np.int64)).quantile(quantile)
        return found.quantile(quantile, self._entry_of[entry])

    def ranking(self, entry: str | None = None) -> pd.DataFrame:
        """Rank entities, as `perflab.analysis.ranking.rank` does with all traces at hand.

        Parameters
        ----------
        entry : str or None
            The entry operation to look at; None for all, called "all".

        Returns
        -------
        pandas.DataFrame
            Its columns. Percentiles are known to 0.2 %; intervals are made of slices of time.
        """
        of_entry = None if entry is None else self._entry_of[entry]
        chosen = [at for at, (one, _) in enumerate(self._pairs) if of_entry in (None, one)]
        entities = sorted({self._pairs[at][1] for at in chosen})
        place = {entity: at for at, entity in enumerate(entities)}
        group = np.full(len(self._pairs), -1, dtype=np.int64)
        group[chosen] = [place[self._pairs[at][1]] for at in chosen]
        table = self._table(entities, group)

        slices = np.zeros((len(entities), SLICES), dtype=np.int64)
        np.add.at(slices, group[chosen], self._slices[chosen])
        among = self._requests if of_entry is None else self._requests[of_entry : of_entry + 1]
        in_slices = among.sum(axis=0)
        per_cell = np.concatenate([in_slices, slices[table.pop("place").to_numpy()]]).T.astype(np.float64)
        resampling = Resampling.over(SLICES, self.end_ns - self.begin_ns)
        totals = resampling.sums(per_cell)
        requests, total_ns = (int(total) for total in in_slices.sum(axis=1))
        return add_estimates(table, totals, resampling.blocks, requests, total_ns, entry or ALL)

    def _table(self, entities: Sequence[int], group: Int64s) -> pd.DataFrame:
        """Return the sums per entity, most time first, with its ``place`` among ``entities``."""
        sums = np.zeros((len(entities), 4), dtype=np.int64)
        chosen = np.flatnonzero(group >= 0)
        np.add.at(sums, group[chosen], self._sums[chosen])
        exemplars: list[list[_Exemplar]] = [[] for _ in entities]
        for at in chosen.tolist():
            exemplars[group[at]] += self._exemplars[at]
        times = Histograms.merge(*self._times).among(group >= 0).regroup(group)
        rows = [self._entities[entity] for entity in entities]
        table = pd.DataFrame(rows, columns=list(COLUMNS)).astype("str")
        calls, exclusive, covered, requests = sums.T
        table["calls"], table["exclusive_ns"] = calls, exclusive
        table["mean_ms"] = exclusive / np.maximum(calls, 1) / NS_PER_MS
        for column, quantile in QUANTILES.items():
            table[column] = [times.quantile(quantile, at) / NS_PER_MS for at in range(len(entities))]
        table["covered_ns"], table["requests"] = covered, requests
        table["exemplar_trace_ids"] = [
            list(dict.fromkeys(one.trace_id for one in sorted(some)[:EXEMPLARS])) for some in exemplars
        ]
        table["place"] = np.arange(len(entities))
        return table.sort_values(["exclusive_ns", "entity"], ascending=[False, True], ignore_index=True)

    def _number_entry(self, name: str) -> int:
        if name not in self._entry_of:
            self._entry_of[name] = len(self.entries)
            self.entries.append(name)
            self._requests = np.concatenate([self._requests, np.zeros((1, 2, SLICES), dtype=np.int64)])
        return self._entry_of[name]

    def _number_entity(self, row: tuple[str, ...]) -> int:
        if row[0] not in self._entity_of:
            self._entity_of[row[0]] = len(self._entities)
            self._entities.append(row)
        return self._entity_of[row[0]]

    def _number_pair(self, entry: int, entity: int) -> int:
        if (entry, entity) not in self._pair_of:
            self._pair_of[entry, entity] = len(self._pairs)
            self._pairs.append((entry, entity))
            self._exemplars.append([])
        return self._pair_of[entry, entity]

    def _number_pairs(self, walked: Walked, sums: Sums, entry_of: Int64s) -> Int64s:
        """Return the number of each pair that is there, by ``entry * entities + entity`` of ``walked``."""
        width = walked.entities.size
        is_there = np.zeros(len(self.entries) * width, dtype=bool)
        is_there[entry_of[sums.request] * width + sums.entity] = True
        numbers = np.full(len(is_there), -1, dtype=np.int64)
        for key in np.flatnonzero(is_there).tolist():
            entity = self._number_entity(walked.entities.rows[key % width])
            numbers[key] = self._number_pair(key // width, entity)
        self._grow()
        return numbers

    def _grow(self) -> None:
        missing = len(self._pairs) - len(self._sums)
        if missing:
            self._sums = np.concatenate([self._sums, np.zeros((missing, 4), dtype=np.int64)])
            self._slices = np.concatenate([self._slices, np.zeros((missing, SLICES), dtype=np.int64)])

    def _add_exemplars(self, requests: pd.DataFrame, pair: Int64s, sums: Sums) -> None:
        most = most_per_group(pair, sums.exclusive_ns, sums.request, len(self._pairs), EXEMPLARS)
        least = np.array([some[-1].less_ns if len(some) == EXEMPLARS else 0 for some in self._exemplars])
        better = (most >= 0) & (-sums.exclusive_ns[most] <= least[:, None]) if len(pair) else most >= 0
        trace_id: Any = requests["trace_id"].array
        begun_ns, span_id = requests["start_ns"].to_numpy(), requests["span_id"].to_numpy()
        for of_pair in np.flatnonzero(better.any(axis=1)).tolist():
            some = []
            for place in most[of_pair][better[of_pair]].tolist():
                request = int(sums.request[place])
                key = (-int(sums.exclusive_ns[place]), int(begun_ns[request]))
                some.append(_Exemplar(*key, str(trace_id[request]), int(span_id[request])))
            self._keep(of_pair, some)

    def _keep(self, pair: int, some: Sequence[_Exemplar]) -> None:
        self._exemplars[pair] = sorted([*self._exemplars[pair], *some])[:EXEMPLARS]


def _collect(parts: list[Histograms], part: Histograms) -> None:
    """Put a part to the others, and add them up once there are many."""
    parts.append(part)
    if len(parts) > _MERGED_AT_ONCE:
        parts[:] = [Histograms.merge(*parts)]
