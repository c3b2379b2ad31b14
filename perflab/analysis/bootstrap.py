"""Intervals that know requests close in time are alike: the circular block bootstrap.

Requests of one load test are not independent: they share queues, caches, pauses. Whole blocks of
consecutive requests are drawn, so that what neighbours share stays together [1]_.

References
----------
.. [1] D. N. Politis, J. P. Romano, A circular block-resampling procedure for stationary data, 1992.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from perflab.units import NS_PER_S

Int64s = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95
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
        span_s = float(start_ns[-1] - start_ns[0]) / NS_PER_S if size > 1 else 0.0
        in_a_second = cells / span_s if span_s > 0 else 1.0
        block = max(math.ceil(cells ** (1 / 3)), math.ceil(in_a_second))
        block = max(1, min(block, cells // _MIN_BLOCKS))
        rng = np.random.default_rng(seed)
        chosen = rng.integers(0, cells, size=(rounds, math.ceil(cells / block)))
        flat = (chosen + cells * np.arange(rounds)[:, None]).ravel()
        draws = np.bincount(flat, minlength=rounds * cells).reshape(rounds, cells)
        return cls(size, cells, block, draws.astype(np.float64))

    def cell_of(self, request: Int64s) -> Int64s:
        """Return the cell of each request, given its position in time."""
        return request * self.cells // max(1, self.size)

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


def interval(rounds: Floats) -> tuple[Floats, Floats]:
    """Return the 95 % percentile interval of each column of resampled statistics."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(rounds, [tail, 1 - tail], axis=0)
    return low, high


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
