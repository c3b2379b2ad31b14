"""Intervals that know requests close in time are alike: the circular block bootstrap.

Requests of one load test are not independent: they share queues, caches, pauses. Whole blocks of
consecutive requests are drawn, so that what neighbours share stays together [1]_.

References
----------
.. [1] D. N. Politis, J. P. Romano, A circular block-resampling procedure for stationary data, 1992.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from perflab.units import NS_PER_S

Int64s = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95
_NORMAL_95 = 1.959963984540054
_ROUNDS = 600
_MAX_CELLS = 4096
_MIN_BLOCKS = 10


@dataclass(frozen=True, eq=False)
class Resampling:
    """A plan for drawing blocks of consecutive requests.

    Attributes
    ----------
    size : int
        Requests, in order of time.
    cells : int
        Groups of consecutive requests they are summed into: the requests themselves up to 4,096 of them.
    block : int
        Cells in a block: the longer of one second and ``cells ** (1/3)``, but at least ten blocks.
    draws : float64[rounds, cells]
        How often each round draws the block beginning at each cell (cyclically).
    """

    size: int
    cells: int
    block: int
    draws: Floats

    @classmethod
    def of(cls, start_ns: Int64s, *, seed: int = 0, rounds: int = _ROUNDS) -> Resampling:
        """Plan for requests that began at ``start_ns`` (ascending); the same seed draws the same."""
        size = len(start_ns)
        cells = max(1, min(size, _MAX_CELLS))
        span_ns = int(start_ns[-1]) - int(start_ns[0]) if size > 1 else 0
        return cls._plan(size, cells, span_ns, seed, rounds)

    @classmethod
    def over(cls, cells: int, span_ns: int, *, seed: int = 0, rounds: int = _ROUNDS) -> Resampling:
        """Plan for equal slices of a time of ``span_ns``, instead of requests."""
        return cls._plan(cells, cells, span_ns, seed, rounds)

    @classmethod
    def _plan(cls, size: int, cells: int, span_ns: int, seed: int, rounds: int) -> Resampling:
        in_a_second = cells / (span_ns / NS_PER_S) if span_ns > 0 else 1.0
        block = max(math.ceil(cells ** (1 / 3)), math.ceil(in_a_second))
        block = max(1, min(block, cells // _MIN_BLOCKS))
        rng = np.random.default_rng(seed)
        chosen = rng.integers(0, cells, size=(rounds, math.ceil(cells / block)))
        flat = (chosen + cells * np.arange(rounds)[:, None]).ravel()
        draws = np.bincount(flat, minlength=rounds * cells).reshape(rounds, cells)
        return cls(size, cells, block, draws.astype(np.float64))

    @property
    def blocks(self) -> int:
        """Blocks the requests are cut into."""
        return self.cells // self.block

    def cell_of(self, request: Int64s) -> Int64s:
        """Return the cell of each request, given its position in time."""
        return request * self.cells // max(1, self.size)

    @property
    def weights(self) -> Int64s:
        """How often each round draws each cell: int64[rounds, cells]."""
        begun = self.draws.astype(np.int64)
        reached = np.concatenate([begun[:, self.cells - self.block :], begun], axis=1).cumsum(axis=1)
        weights: Int64s = reached[:, self.block :] - reached[:, : -self.block]
        return weights

    def sums(self, per_cell: Floats) -> Floats:
        """Return the resampled sums.

        Parameters
        ----------
        per_cell : float64[cells, k]
            Sums of k quantities over each cell.

        Returns
        -------
        float64[rounds, k]
            Sums over the blocks of each round. Take ratios of them: a round may draw a few cells more
            or less than there are.
        """
        wrapped = np.concatenate([per_cell, per_cell[: self.block - 1]]) if self.block > 1 else per_cell
        reached = np.concatenate([np.zeros((1, per_cell.shape[1])), np.cumsum(wrapped, axis=0)])
        blocks = reached[self.block :] - reached[: -self.block]
        drawn: Floats = self.draws @ blocks
        return drawn


def paired_seeds(one: Sequence[int], other: Sequence[int]) -> tuple[int, int]:
    """Return seeds for two samples that stay with the samples when they change places.

    Parameters
    ----------
    one, other : sequence of int
        What tells the samples apart, such as sizes and sums. Where nothing does, the first gets 0.

    Examples
    --------
    >>> paired_seeds([10, 3], [10, 2]), paired_seeds([10, 2], [10, 3])
    ((1, 0), (0, 1))
    """
    return (0, 1) if tuple(one) <= tuple(other) else (1, 0)


def interval(rounds: Floats, estimate: Floats, blocks: int) -> tuple[Floats, Floats]:
    """Return the 95 % interval of each column of resampled statistics.

    Parameters
    ----------
    rounds : float64[rounds, k]
        The resampled statistics.
    estimate : float64[k]
        The statistics themselves.
    blocks : int
        Blocks the data were cut into.

    Returns
    -------
    low, high : float64[k]
        The percentile interval, widened about the estimate for the spread that so few blocks
        understate: by ``sqrt(blocks / (blocks - 1))`` and Student's t over the normal quantile (1.22 for
        the fewest, ten; 1.02 for a hundred).
    """
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(rounds, [tail, 1 - tail], axis=0)
    freedom = max(1, blocks - 1)
    wide = math.sqrt(1 + 1 / freedom) * _student_quantile(freedom) / _NORMAL_95
    # resampling a skewed statistic may put both ends on one side of it: the interval holds it anyway
    return (
        estimate - wide * np.maximum(estimate - low, 0.0),
        estimate + wide * np.maximum(high - estimate, 0.0),
    )


def student_interval(values: Floats) -> tuple[float, float, float]:
    """Return the mean of independent values and its 95 % interval by Student's t; NaN below two of them.

    Examples
    --------
    >>> [round(bound, 1) for bound in student_interval(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))]
    [3.0, 1.0, 5.0]
    """
    if not len(values):
        return math.nan, math.nan, math.nan
    mean, freedom = float(values.mean()), len(values) - 1
    if not freedom:
        return mean, math.nan, math.nan
    half = _student_quantile(freedom) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def p_values(delta: Floats, errors: Sequence[Floats], blocks: Sequence[int]) -> Floats:
    """Return two-sided p-values of differences between independent samples.

    Parameters
    ----------
    delta : float64[k]
        The differences.
    errors : sequence of float64[k]
        The resampled standard error of each sample.
    blocks : sequence of int
        Blocks each was cut into.

    Returns
    -------
    float64[k]
        Welch's t test with blocks in place of observations. Next to 0 where there is a difference and no
        error at all to doubt it with.
    """
    freedom = np.maximum(1, np.array(blocks) - 1)
    variances = [error**2 * (1 + 1 / free) for error, free in zip(errors, freedom.tolist(), strict=True)]
    total = np.maximum(sum(variances), np.finfo(float).tiny)
    spread = sum(variance**2 / free for variance, free in zip(variances, freedom.tolist(), strict=True))
    welch = total**2 / np.maximum(spread, np.finfo(float).tiny)
    found = [
        math.erfc(_normal_of_student(abs(value) / math.sqrt(variance), free) / math.sqrt(2)) if value else 1.0
        for value, variance, free in zip(delta.tolist(), total.tolist(), welch.tolist(), strict=True)
    ]
    return np.array(found, dtype=np.float64)


def false_discovery(p_values: Floats) -> Floats:
    """Return Benjamini-Hochberg adjusted p-values: call those <= 0.05 and 5 % of them are false.

    Examples
    --------
    >>> false_discovery(np.array([0.01, 0.04, 0.03, 0.5])).round(4).tolist()
    [0.04, 0.0533, 0.0533, 0.5]
    """
    size = len(p_values)
    order = np.argsort(p_values)[::-1]
    adjusted = np.minimum.accumulate(p_values[order] * size / np.arange(size, 0, -1))
    result = np.empty(size)
    result[order] = np.minimum(adjusted, 1.0)
    return result


def _normal_of_student(t: float, freedom: float) -> float:
    """Return the normal deviate with the tail of Student's t (D. L. Wallace 1959; off by less than 0.02)."""
    freedom = max(1.0, freedom)
    return (8 * freedom + 1) / (8 * freedom + 3) * math.sqrt(freedom * math.log1p(t * t / freedom))


def _student_quantile(freedom: float) -> float:
    """Return the 97.5 % quantile of Student's t, by the same approximation turned round."""
    normal = _NORMAL_95 * (8 * freedom + 3) / (8 * freedom + 1)
    return math.sqrt(freedom * math.expm1(normal * normal / freedom))
