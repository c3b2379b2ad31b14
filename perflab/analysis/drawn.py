"""What was measured on two sides, what chance could have made of it, and what may be said then.

A `Drawn` is one statistic of one side with what the block bootstrap makes of it; a `Pair` is two of them.
The verdicts are those of `verdict_of`: *same* where the interval of the change lies inside a margin of
practical equivalence, *better* or *worse* where the change is more than chance (over all that is asked at
once) and than the margin, and *cannot say* for everything else. More than chance and yet *cannot say* is a
change that may or may not matter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from perflab.analysis.bootstrap import Resampling, interval, p_values
from perflab.analysis.criticalpath import CriticalPath
from perflab.analysis.latency import QUANTILES, Requests
from perflab.analysis.quantile import CensoredSample
from perflab.analysis.ranking import resampled
from perflab.units import NS_PER_MS

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

BETTER, WORSE, SAME, CANNOT_SAY = "better", "worse", "same", "cannot say"
SIGNIFICANT = 0.025
"""Adjusted p-value up to which a change is more than chance. Half of the 5 % promised, since few blocks of
skewed times make p-values somewhat too small: with 0.05, 4 % of pairs of runs of 120 requests differed."""

MIN_REQUESTS = 20
"""Requests without which no statistic has an interval."""

MEAN, ERRORS = "mean", "errors"
METRICS = (*QUANTILES, MEAN, ERRORS)
"""What requests can be measured by: quantiles of their latency, its mean, the ratio of errors."""

_TAIL = 0.025
_BOUNDLESS = 1e6


class Interval(NamedTuple):
    """An estimate and the ends of its 95 % interval; an end is NaN where the data do not bound it."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Drawn:
    """A statistic of one side.

    Attributes
    ----------
    value : float
        What was measured; NaN if nothing was.
    rounds : float64[rounds]
        What it is in each round of the bootstrap.
    blocks : int
        Blocks the requests were drawn in.
    size, needed : int
        Requests there are, and without which it has no interval.
    is_bound : bool
        The value is only a lower bound, for requests that nobody answered; or it is in more than 2.5 % of
        the rounds.
    """

    value: float
    rounds: Floats
    blocks: int
    size: int
    needed: int = MIN_REQUESTS
    is_bound: bool = False

    @property
    def is_enough(self) -> bool:
        """Whether there are enough requests for an interval."""
        return self.size >= self.needed


@dataclass(frozen=True, eq=False)
class Pair:
    """The same statistic of two sides; ``unit`` is "ms" or "ratio"."""

    before: Drawn
    after: Drawn
    unit: str

    @property
    def is_enough(self) -> bool:
        """Whether both sides have enough requests."""
        return self.before.is_enough and self.after.is_enough

    @property
    def is_proportional(self) -> bool:
        """Whether a change is judged by the ratio of both values and not by their difference."""
        return self.unit == "ms" and self.before.value > 0 and self.after.value > 0

    def level(self) -> Interval:
        """Return what is after, whatever was before."""
        if not self.after.is_enough:
            return Interval(self.after.value, math.nan, math.nan)
        low, high = _ends(self.after.rounds, self.after.value, self.after.blocks)
        return Interval(self.after.value, low, math.nan if self.after.is_bound else high)

    def difference(self, factor: float = 1.0) -> Interval:
        """Return ``after - factor * before``."""
        estimate = self.after.value - factor * self.before.value
        if not self.is_enough:
            return Interval(estimate, math.nan, math.nan)
        return self._bounded(self.after.rounds - factor * self.before.rounds, estimate)

    def log_ratio(self) -> Interval:
        """Return ``log(after / before)``; all NaN where there was nothing before."""
        if not self.before.value > 0 or math.isnan(self.after.value):
            return Interval(math.nan, math.nan, math.nan)
        before, after = self._logarithms()
        estimate = after[0] - before[0]
        if not self.is_enough:
            return Interval(estimate, math.nan, math.nan)
        return self._bounded(after[1:] - before[1:], estimate)

    def change(self) -> Interval:
        """Return ``after / before - 1``; an end beyond a million times counts as none."""
        ratios = [math.expm1(value) if value < 700 else math.inf for value in self.log_ratio()]
        return Interval(*(value if value < _BOUNDLESS else math.nan for value in ratios))

    def p_value(self) -> float:
        """Return the two-sided p-value of there being no change; NaN where there is no interval."""
        if not self.is_enough:
            return math.nan
        blocks = (self.before.blocks, self.after.blocks)
        if self.is_proportional:
            before, after = self._logarithms()
            values, rounds = (before[0], after[0]), (before[1:], after[1:])
        else:
            values = (self.before.value, self.after.value)
            rounds = (self.before.rounds, self.after.rounds)
        errors = [np.array([side.std()]) for side in rounds]
        return float(p_values(np.array([values[1] - values[0]]), errors, blocks)[0])

    def why_not(self, what: str) -> str:
        """Say why there is no interval, or an end of it is missing; "" where there is nothing to say."""
        if not self.is_enough:
            needed = max(self.before.needed, self.after.needed)
            return (
                f"too few requests: {self.before.size:,} before and {self.after.size:,} after, "
                f"{what} needs {needed:,} of each"
            )
        sides = [name for name, side in (("before", self.before), ("after", self.after)) if side.is_bound]
        return (
            f"{what} is only a lower bound {' and '.join(sides)}: requests went unanswered" if sides else ""
        )

    def _logarithms(self) -> tuple[Floats, Floats]:
        """Return the logarithms of both sides, the value before the rounds."""
        floor = 1e-9 * max(self.before.value, self.after.value)
        before, after = (
            np.log(np.maximum(np.append(side.value, side.rounds), floor))
            for side in (self.before, self.after)
        )
        return before, after

    def _bounded(self, rounds: Floats, estimate: float) -> Interval:
        low, high = _ends(rounds, estimate, min(self.before.blocks, self.after.blocks))
        return Interval(
            estimate, math.nan if self.before.is_bound else low, math.nan if self.after.is_bound else high
        )


def verdict_of(change: Interval, margin: float, q_value: float) -> str:
    """Return what may be said of a change of which more is worse.

    Parameters
    ----------
    change : Interval
        The change; 0 is none.
    margin : float
        Up to which a change makes no difference in practice, up or down.
    q_value : float
        The p-value, adjusted for all that is asked at once.

    Examples
    --------
    >>> verdict_of(Interval(1.0, -2.0, 4.0), 5.0, 0.5), verdict_of(Interval(9.0, 6.0, 12.0), 5.0, 0.01)
    ('same', 'worse')
    >>> verdict_of(Interval(9.0, -3.0, 21.0), 5.0, 0.2), verdict_of(Interval(4.0, 1.0, 7.0), 5.0, 0.01)
    ('cannot say', 'cannot say')
    """
    if change.low >= -margin and change.high <= margin:
        return SAME
    if q_value <= SIGNIFICANT and change.low > 0 and change.estimate >= margin:
        return WORSE
    if q_value <= SIGNIFICANT and change.high < 0 and change.estimate <= -margin:
        return BETTER
    return CANNOT_SAY


def draw_requests(requests: Requests, metrics: Sequence[str], seed: int) -> dict[str, Drawn]:
    """Measure requests.

    Parameters
    ----------
    requests : Requests
        In order of due time.
    metrics : sequence of str
        Of `METRICS`.
    seed : int
        What the draws depend on.

    Returns
    -------
    dict of str to Drawn
        Latencies in ms, unanswered requests counted as slower than answered ones. The mean is a lower bound
        where there are any. Where no request failed, or all did, rounds of the error ratio are drawn from
        the Beta distribution that has the exact binomial bound as its 97.5 % point.
    """
    size = len(requests.row)
    if not size:
        nothing = np.zeros(0)
        return {metric: Drawn(math.nan, nothing, 1, 0, _needed(metric)) for metric in metrics}
    plan = Resampling.of(requests.due_ns, seed=seed)
    quantiles = sorted(QUANTILES[metric] for metric in metrics if metric in QUANTILES)
    drawn = _draw_quantiles(requests, plan, quantiles) if quantiles else {}
    found = {metric: drawn[QUANTILES[metric]] for metric in metrics if metric in QUANTILES}
    per_cell = np.zeros((plan.cells, 3))
    rows = (np.ones(size), requests.waited_ns / NS_PER_MS, requests.is_error)
    np.add.at(per_cell, plan.cell_of(np.arange(size)), np.stack(rows, axis=1))
    sums = plan.sums(per_cell)
    if MEAN in metrics:
        is_bound = not requests.is_answered.all()
        value = float(requests.waited_ns.mean()) / NS_PER_MS
        found[MEAN] = Drawn(value, sums[:, 1] / sums[:, 0], plan.blocks, size, is_bound=is_bound)
    if ERRORS in metrics:
        errors = int(requests.is_error.sum())
        rounds = sums[:, 2] / sums[:, 0]
        if errors in (0, size):
            rare = np.random.default_rng(seed).beta(1, size, len(rounds))
            rounds = rare if errors == 0 else 1 - rare
        found[ERRORS] = Drawn(errors / size, rounds, plan.blocks, size)
    return {metric: found[metric] for metric in metrics}


def draw_entity(path: CriticalPath, among: Mask, entity: str, seed: int) -> tuple[Drawn, Drawn]:
    """Measure an entity on the critical paths of some requests.

    Parameters
    ----------
    path : CriticalPath
        The walked requests.
    among : bool[requests]
        Those to measure.
    entity : str
        An operation or an edge; one that is on no path takes no time.
    seed : int
        What the draws depend on.

    Returns
    -------
    exclusive : Drawn
        Exclusive time per request, in ms.
    share : Drawn
        Of the summed duration of the requests.
    """
    size = int(among.sum())
    if not size:
        nothing = Drawn(math.nan, np.zeros(0), 1, 0)
        return nothing, nothing
    totals, blocks = resampled(path, among, [entity], seed=seed)
    is_it = np.asarray(path.exclusive["entity"].array == entity) & among[path.exclusive["request"].to_numpy()]
    time_ns = int(path.exclusive["exclusive_ns"].to_numpy()[is_it].sum())
    total_ns = max(1, int(path.entries["duration_ns"].to_numpy()[among].sum()))
    exclusive = Drawn(time_ns / size / NS_PER_MS, totals[:, 2] / totals[:, 0] / NS_PER_MS, blocks, size)
    return exclusive, Drawn(time_ns / total_ns, totals[:, 2] / np.maximum(totals[:, 1], 1.0), blocks, size)


def _draw_quantiles(requests: Requests, plan: Resampling, quantiles: list[float]) -> dict[float, Drawn]:
    from perflab.analysis.summing import places_of_ranks  # here: the compiler takes long to load
    from perflab.compiled import in_one_piece

    sample = CensoredSample.of(requests.waited_ns, requests.is_answered)
    order = np.lexsort((requests.waited_ns, ~requests.is_answered))
    cell = plan.cell_of(np.arange(plan.size))
    weights = plan.weights
    totals = weights @ np.bincount(cell, minlength=plan.cells)
    ranks = [np.maximum(1, np.ceil(quantile * totals - 1e-9)) for quantile in quantiles]
    places = places_of_ranks(
        in_one_piece(weights.ravel()),
        in_one_piece(cell[order]),
        in_one_piece(np.stack(ranks, axis=1).ravel()),
        plan.cells,
        len(quantiles),
    ).reshape(-1, len(quantiles))
    found = {}
    for quantile, place in zip(quantiles, places.T, strict=True):
        value, is_bound = sample.quantile(quantile)
        is_bound |= bool((place >= sample.answered).mean() > _TAIL)
        rounds = sample.ascending_ns[place] / NS_PER_MS
        needed = _needed_for(quantile)
        found[quantile] = Drawn(value / NS_PER_MS, rounds, plan.blocks, plan.size, needed, is_bound)
    return found


def _needed(metric: str) -> int:
    return _needed_for(QUANTILES[metric]) if metric in QUANTILES else MIN_REQUESTS


def _needed_for(quantile: float) -> int:
    """Return how many requests it takes to have one beyond the quantile of the population, 97.5 % sure."""
    return max(MIN_REQUESTS, math.floor(math.log(_TAIL) / math.log(quantile)) + 1)


def _ends(rounds: Floats, estimate: float, blocks: int) -> tuple[float, float]:
    low, high = interval(rounds[:, None], np.array([estimate]), blocks)
    return float(low[0]), float(high[0])
