"""Quantiles as order statistics: of plain values, of values some of which are only lower bounds.

Every quantile here is an observed value (nearest rank: the ``ceil(q n)``-th smallest), never an
interpolation, so that a percentile can be looked up in the data. Its confidence interval is made of order
statistics, too, and holds for any distribution [1]_.

References
----------
.. [1] G. J. Hahn, W. Q. Meeker, Statistical Intervals, section 5.2 (distribution-free intervals for
   percentiles).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

CONFIDENCE = 0.95
_EXACT_UP_TO = 200_000
_NORMAL_95 = 1.959963984540054


def nearest_rank(size: int, quantile: float) -> int:
    """Return the 1-based rank of a quantile among ``size`` values.

    Examples
    --------
    >>> nearest_rank(100, 0.99), nearest_rank(101, 0.99), nearest_rank(7, 0.0)
    (99, 100, 1)
    """
    # 1e-9 keeps 0.99 * 100 = 99.00000000000001 from becoming rank 100
    return min(size, max(1, math.ceil(quantile * size - 1e-9)))


def quantile_of(ascending: npt.NDArray[np.generic], quantile: float) -> float:
    """Return the nearest-rank quantile of sorted values; NaN where there are none."""
    if not len(ascending):
        return math.nan
    return float(ascending[nearest_rank(len(ascending), quantile) - 1])


def rank_bounds(size: int, quantile: float) -> tuple[int, int]:
    """Return the ranks between which a quantile of the population lies with 95 % confidence.

    Parameters
    ----------
    size : int
        Number of values, taken to be independent.
    quantile : float
        0 < quantile < 1.

    Returns
    -------
    low, high : int
        1-based ranks. 0 and ``size + 1`` say that the values cannot bound it on that side.

    Notes
    -----
    The number of values below the quantile is binomial(size, quantile); ``low`` is its 2.5 % point,
    ``high`` its 97.5 % point plus one. Exact up to 200,000 values, by the normal approximation beyond
    (off by less than a rank where ``size * min(q, 1 - q) > 100``).

    Examples
    --------
    >>> rank_bounds(100, 0.5), rank_bounds(50, 0.99)
    ((40, 61), (48, 51))
    """
    tail = (1 - CONFIDENCE) / 2
    if size <= 0:
        return 0, 1
    if size > _EXACT_UP_TO:
        spread = _NORMAL_95 * math.sqrt(size * quantile * (1 - quantile))
        low, high = math.floor(size * quantile - spread), math.ceil(size * quantile + spread) + 1
        return max(0, low), min(size + 1, high)
    below = np.cumsum(_binomial(size, quantile))
    low = int(np.searchsorted(below, tail, side="left"))
    high = int(np.searchsorted(below, 1 - tail, side="left")) + 1
    return low, min(size + 1, high)


@dataclass(frozen=True, eq=False)
class CensoredSample:
    """Sorted waiting times, those of unanswered requests last.

    Attributes
    ----------
    ascending_ns : int64[n]
        Answered latencies, then what is known of the others: at least their own wait, and at least the
        slowest answer.
    answered : int
        How many of them were answered.
    """

    ascending_ns: Int64s
    answered: int

    @classmethod
    def of(cls, waited_ns: Int64s, is_answered: Mask) -> CensoredSample:
        """Sort waiting times.

        An unanswered request counts as slower than every answered one: it got nothing in the time it
        waited and would have had to wait on. So a quantile among the answered is what was measured, and
        one beyond them is a lower bound.
        """
        answered = np.sort(waited_ns[is_answered])
        slowest = answered[-1] if len(answered) else np.iinfo(np.int64).min
        unanswered = np.sort(np.maximum(waited_ns[~is_answered], slowest))
        return cls(np.concatenate([answered, unanswered]), len(answered))

    def quantile(self, quantile: float) -> tuple[float, bool]:
        """Return the quantile in ns and whether it is only a lower bound (print ``>=``)."""
        size = len(self.ascending_ns)
        if not size:
            return math.nan, False
        rank = nearest_rank(size, quantile)
        return float(self.ascending_ns[rank - 1]), rank > self.answered

    def bounds(self, quantile: float) -> tuple[float, float]:
        """Return the 95 % confidence interval in ns.

        NaN on a side where the sample is too small to bound it, or where the upper bound would be an
        unanswered request.
        """
        size = len(self.ascending_ns)
        low, high = rank_bounds(size, quantile)
        low_ns = float(self.ascending_ns[low - 1]) if 1 <= low <= size else math.nan
        return low_ns, float(self.ascending_ns[high - 1]) if high <= self.answered else math.nan


def _binomial(size: int, ratio: float) -> npt.NDArray[np.float64]:
    """Return the probabilities of 0 to ``size`` successes, computed in logarithms."""
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, size + 1)))])
    successes = np.arange(size + 1)
    log_ways = log_factorial[size] - log_factorial - log_factorial[::-1]
    probabilities: npt.NDArray[np.float64] = np.exp(
        log_ways + successes * math.log(ratio) + (size - successes) * math.log1p(-ratio)
    )
    return probabilities
