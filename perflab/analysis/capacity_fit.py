"""Two curves fitted to windows of a run: the knee of latency on rate, and the Universal Scalability Law.

Both are fitted by least squares on logarithms, since latency and throughput err by ratios, and to many
weightings of the windows at once: one for the estimate, one for each round of a bootstrap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_GRID = 48
_STEPS = 60
_TINY = 1e-9
_MIN_SPREAD = 0.02
"""Of a shape between 0 and 1, over all windows: that of one among fifty that is 1."""


@dataclass(frozen=True, eq=False)
class Knees:
    """The knee of each weighting.

    Attributes
    ----------
    at : float64[rounds]
        The rate up to which latency is level.
    rise : float64[rounds]
        How many times longer it is at the highest rates than before.
    """

    at: Floats
    rise: Floats


def fit_knees(rate: Floats, latency: Floats, weights: Floats) -> Knees:
    """Fit ``log latency = a + b clip((rate - knee) / width, 0, 1)``.

    Parameters
    ----------
    rate, latency : float64[windows]
        ``latency`` above 0.
    weights : float64[rounds, windows]
        How much each window counts.

    Returns
    -------
    Knees
        Least squares over a grid of knees and widths. The clip at 1 is for a run that went on past
        saturation, where latency is that of a queue that grows with time and no longer tells of the rate.

    Examples
    --------
    >>> rate = np.arange(10.0, 110.0)
    >>> found = fit_knees(rate, np.where(rate < 60, 5.0, 5.0 * np.exp((rate - 60) / 10)), np.ones((1, 100)))
    >>> found.at.round().tolist()
    [60.0]
    """
    lowest, highest = float(rate.min()), float(rate.max())
    edges = np.linspace(lowest, highest, _GRID + 1)
    begin, end = np.triu_indices(_GRID + 1, k=1)
    shapes = np.clip((rate[:, None] - edges[begin]) / (edges[end] - edges[begin]), 0.0, 1.0)
    y = np.log(latency)
    total = weights.sum(axis=1, keepdims=True)
    mean_y = (weights @ y)[:, None] / total
    mean_shape = weights @ shapes / total
    spread = weights @ shapes**2 / total - mean_shape**2
    joint = (weights * y) @ shapes / total - mean_shape * mean_y
    # a bend that one window alone would make is none
    slope = np.where(spread > _MIN_SPREAD, joint / np.maximum(spread, _MIN_SPREAD), 0.0)
    explained = np.where(slope > 0, slope * joint, 0.0)  # latency that falls with the rate has no knee
    best = explained.argmax(axis=1)
    rounds = np.arange(len(weights))
    return Knees(edges[begin[best]], np.exp(np.maximum(slope[rounds, best], 0.0)))


@dataclass(frozen=True, eq=False)
class Scalability:
    """The law's parameters for each weighting.

    Attributes
    ----------
    rate : float64[rounds]
        Lambda: requests per second of one request in flight.
    contention : float64[rounds]
        Sigma, 0 to 1: the part that is done one at a time.
    coherence : float64[rounds]
        Kappa, 0 or more: the part every pair of requests costs.
    """

    rate: Floats
    contention: Floats
    coherence: Floats

    def throughput(self, in_flight: float) -> Floats:
        """Return requests per second with so many in flight."""
        return self.rate * in_flight / self.loss(in_flight)

    def loss(self, in_flight: float) -> Floats:
        """Return how many times longer a request takes than without contention and coherence."""
        others = in_flight - 1
        return 1 + self.contention * others + self.coherence * in_flight * others

    @property
    def best_in_flight(self) -> Floats:
        """Requests in flight at which throughput is highest; infinite where it never falls."""
        safe = np.maximum(self.coherence, _TINY)
        best = np.maximum(np.sqrt(np.maximum(1 - self.contention, 0.0) / safe), 1.0)
        return np.where(self.coherence > _TINY, best, math.inf)

    @property
    def peak(self) -> Floats:
        """Highest throughput; infinite where there is neither contention nor coherence."""
        best = self.best_in_flight
        finite = np.where(np.isfinite(best), best, 1.0)
        others = finite - 1
        at_best = self.rate * finite / (1 + self.contention * others + self.coherence * finite * others)
        levels_off = np.where(
            self.contention > _TINY, self.rate / np.maximum(self.contention, _TINY), math.inf
        )
        return np.where(np.isfinite(best), at_best, levels_off)


def fit_scalability(in_flight: Floats, throughput: Floats, weights: Floats) -> Scalability:
    """Fit ``X(N) = lambda N / (1 + sigma (N - 1) + kappa N (N - 1))`` [1]_.

    Parameters
    ----------
    in_flight, throughput : float64[windows]
        Both above 0.
    weights : float64[rounds, windows]
        How much each window counts.

    Returns
    -------
    Scalability
        Least squares of ``log X`` by Gauss-Newton with steps halved until they help; a parameter that would
        fall below 0 stays there while it would.

    References
    ----------
    .. [1] N. J. Gunther, A General Theory of Computational Scalability Based on Rational Functions, 2008.
    """
    found = np.array([_fit_one(in_flight, throughput, row) for row in weights])
    return Scalability(found[:, 0], found[:, 1], found[:, 2])


def _fit_one(in_flight: Floats, throughput: Floats, weights: Floats) -> tuple[float, float, float]:
    used = weights > 0
    x, y, w = in_flight[used], np.log(in_flight[used] / throughput[used]), weights[used] / weights.sum()
    terms = np.column_stack([x - 1, x * (x - 1)])
    scale = np.maximum(np.abs(terms).max(axis=0), _TINY)
    terms = terms / scale

    def miss(shape: Floats) -> tuple[Floats, Floats]:
        denominator = np.maximum(1 + terms @ shape, 1e-6)
        ratio = y - np.log(denominator)
        return ratio - w @ ratio, denominator

    shape = _start(terms, y, w, scale)
    left, denominator = miss(shape)
    loss = w @ left**2
    for _ in range(_STEPS):
        slopes = terms / denominator[:, None]
        slopes = slopes - w @ slopes
        downhill = slopes.T @ (w * left)
        free = (shape > 0) | (downhill > 0)
        if not free.any():
            break
        square = (slopes * w[:, None]).T @ slopes
        step = np.zeros(2)
        chosen = np.ix_(free, free)
        damped = square[chosen] + np.eye(int(free.sum())) * _TINY * max(float(np.trace(square)), _TINY)
        step[free] = np.linalg.solve(damped, downhill[free])
        size = 1.0
        while size > 1e-6:
            trial = np.clip(shape + size * step, 0.0, [scale[0], math.inf])
            left_then, denominator_then = miss(trial)
            loss_then = w @ left_then**2
            if loss_then < loss:
                break
            size /= 2
        else:
            break
        is_done = loss - loss_then <= 1e-12 * loss
        shape, left, denominator, loss = trial, left_then, denominator_then, loss_then
        if is_done:
            break
    rate = math.exp(-float(w @ (y - np.log(denominator))))
    sigma, kappa = (shape / scale).tolist()
    return rate, sigma, kappa


def _start(terms: Floats, y: Floats, w: Floats, scale: Floats) -> Floats:
    """Return where to begin: the law is linear in ``N / X``, which is off only in how errors count."""
    design = np.column_stack([np.ones(len(y)), terms]) * np.sqrt(w)[:, None]
    solved = np.linalg.lstsq(design, np.exp(y - y.mean()) * np.sqrt(w), rcond=None)[0]
    first = max(float(solved[0]), _TINY)
    shape: Floats = np.clip(solved[1:] / first, 0.0, [scale[0], math.inf])
    return shape
