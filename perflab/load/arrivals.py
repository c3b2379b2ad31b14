"""When requests are due: an open schedule, computed whole before the first is sent.

A schedule is a rate that changes linearly, piece by piece. Arrival ``k`` is due when the cumulative
rate reaches ``k``; the first at 0. Nothing a server does can change it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from perflab.errors import ConfigError
from perflab.traffic.scenario import (
    ArrivalPlan,
    ConstantArrivals,
    PoissonArrivals,
    RampArrivals,
)
from perflab.units import NS_PER_S, duration_ns

MAX_ARRIVALS = 50_000_000
"""More than this many requests in one run are refused; the schedule is held in memory."""


@dataclass(frozen=True)
class Piece:
    """A stretch in which the rate goes evenly from one value to another.

    Parameters
    ----------
    start_per_s, end_per_s : float
        Rate at its two ends.
    duration_ns : int
        How long it lasts.
    """

    start_per_s: float
    end_per_s: float
    duration_ns: int

    @property
    def arrivals(self) -> float:
        """Cumulative rate over the piece (not rounded)."""
        return (self.start_per_s + self.end_per_s) / 2 * (self.duration_ns / NS_PER_S)


@dataclass(frozen=True)
class Arrivals:
    """When requests are due. Made by `constant`, `ramp`, `steps`, `poisson` or `from_plan`.

    Parameters
    ----------
    pieces : tuple of Piece
        One after another.
    random : bool
        Whether arrivals are independent (Poisson) instead of evenly spaced.
    seed : int
        Seed of a random schedule.
    """

    pieces: tuple[Piece, ...]
    random: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for piece in self.pieces:
            for rate in (piece.start_per_s, piece.end_per_s):
                if not (math.isfinite(rate) and rate >= 0):
                    raise ConfigError(f"an arrival rate is a number from 0 up, not {rate}")
            if piece.duration_ns <= 0:
                raise ConfigError("arrivals need a duration above 0")
        if not 0 < self.expected <= MAX_ARRIVALS:
            raise ConfigError(
                f"these arrivals come to {self.expected:,.0f} requests; a run has 1 to {MAX_ARRIVALS:,}"
            )

    @classmethod
    def constant(cls, rate: float, over: str) -> Arrivals:
        """Send ``rate`` requests a second for ``over``, evenly spaced.

        Examples
        --------
        >>> Arrivals.constant(4, over="1s").schedule().tolist()
        [0, 250000000, 500000000, 750000000]
        """
        return cls((Piece(rate, rate, duration_ns(over)),))

    @classmethod
    def ramp(cls, start: float, end: float, over: str) -> Arrivals:
        """Change the rate evenly from ``start`` to ``end`` requests a second over ``over``."""
        return cls((Piece(start, end, duration_ns(over)),))

    @classmethod
    def steps(cls, rates: Sequence[float], each: str) -> Arrivals:
        """Send at one rate after another, each for the time ``each``."""
        return cls(tuple(Piece(rate, rate, duration_ns(each)) for rate in rates))

    @classmethod
    def poisson(cls, rate: float, over: str, seed: int = 0) -> Arrivals:
        """Send independent requests, ``rate`` a second on average, for ``over``."""
        return cls((Piece(rate, rate, duration_ns(over)),), random=True, seed=seed)

    @classmethod
    def from_plan(cls, plan: ArrivalPlan) -> Arrivals:
        """Return what ``[arrivals]`` of a scenario describes.

        Raises
        ------
        ConfigError
            If a duration or a rate makes no sense.
        """
        if isinstance(plan, ConstantArrivals):
            return cls.constant(plan.rate, plan.over)
        if isinstance(plan, RampArrivals):
            return cls.ramp(plan.start, plan.end, plan.over)
        if isinstance(plan, PoissonArrivals):
            return cls.poisson(plan.rate, plan.over, plan.seed)
        return cls.steps(plan.rates, plan.each)

    @classmethod
    def from_toml(cls, table: dict[str, object]) -> Arrivals:
        """Read an ``[arrivals]`` table.

        Raises
        ------
        ConfigError
            If the table does not fit; the message names the key.

        Examples
        --------
        >>> Arrivals.from_toml({"kind": "ramp", "from": 2, "to": 10, "over": "20s"}).expected
        120.0
        """
        try:
            return cls.from_plan(msgspec.convert(table, ArrivalPlan))
        except msgspec.ValidationError as error:
            raise ConfigError(f"[arrivals]: {error}") from error

    @property
    def expected(self) -> float:
        """Number of arrivals, exact for an even schedule, the mean for a random one."""
        return sum(piece.arrivals for piece in self.pieces)

    @property
    def duration_ns(self) -> int:
        """How long the schedule lasts."""
        return sum(piece.duration_ns for piece in self.pieces)

    @property
    def peak_per_s(self) -> float:
        """Highest rate asked for."""
        return max(max(piece.start_per_s, piece.end_per_s) for piece in self.pieces)

    def lasting(self, over: str) -> Arrivals:
        """Return the same rates stretched or squeezed to last ``over`` in all.

        Examples
        --------
        >>> Arrivals.ramp(0, 10, over="60s").lasting("6s").expected
        30.0
        """
        factor = duration_ns(over) / self.duration_ns
        return replace(
            self,
            pieces=tuple(
                replace(piece, duration_ns=max(1, round(piece.duration_ns * factor))) for piece in self.pieces
            ),
        )

    def rate_at(self, offset_ns: int) -> float:
        """Return the rate asked for at a time after the start; 0 outside the schedule."""
        for piece in self.pieces:
            if 0 <= offset_ns < piece.duration_ns:
                return piece.start_per_s + (piece.end_per_s - piece.start_per_s) * (
                    offset_ns / piece.duration_ns
                )
            offset_ns -= piece.duration_ns
        return 0.0

    def schedule(self, seed: int | None = None) -> np.ndarray:
        r"""Compute when each request is due.

        The cumulative rate of a piece from :math:`r_0` to :math:`r_1` over :math:`T` is
        :math:`r_0 t + (r_1 - r_0) t^2 / 2T`; its inverse
        :math:`t = 2k / (r_0 + \sqrt{r_0^2 + 2k(r_1 - r_0)/T})` is exact, and stable where the two roots
        nearly cancel. A random schedule maps a unit-rate Poisson process through the same inverse (time
        change of an inhomogeneous Poisson process).

        Parameters
        ----------
        seed : int, optional
            Instead of the schedule's own; only a random one has use for it.

        Returns
        -------
        numpy.ndarray of int64
            Nanoseconds after the start, ascending.
        """
        total = self.expected
        if self.random:
            counts = _unit_poisson(total, self.seed if seed is None else seed)
        else:
            counts = np.arange(math.ceil(total - 1e-9), dtype=np.float64)
        due = np.empty(len(counts), dtype=np.int64)
        before, since_ns = 0.0, 0
        for at, piece in enumerate(self.pieces):
            last = at == len(self.pieces) - 1
            upto = np.inf if last else before + piece.arrivals
            # a count that falls on the seam by rounding only belongs to the piece that begins there
            inside = slice(
                np.searchsorted(counts, before - 1e-9 if at else -1.0), np.searchsorted(counts, upto - 1e-9)
            )
            within = np.maximum(counts[inside] - before, 0.0)
            due[inside] = since_ns + np.rint(_inverse(piece, within) * NS_PER_S).astype(np.int64)
            before += piece.arrivals
            since_ns += piece.duration_ns
        return due


def _inverse(piece: Piece, counts: np.ndarray) -> np.ndarray:
    slope = (piece.end_per_s - piece.start_per_s) / (piece.duration_ns / NS_PER_S)
    root = np.sqrt(np.maximum(piece.start_per_s**2 + 2 * slope * counts, 0.0))
    divisor = piece.start_per_s + root
    seconds = np.divide(2 * counts, divisor, out=np.zeros_like(counts), where=divisor > 0)
    limited: np.ndarray = np.minimum(seconds, piece.duration_ns / NS_PER_S)
    return limited


def _unit_poisson(total: float, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    times = np.zeros(0)
    while not len(times) or times[-1] < total:
        gaps = generator.exponential(size=int(total + 4 * math.sqrt(total) + 10))
        times = np.concatenate([times, (times[-1] if len(times) else 0.0) + np.cumsum(gaps)])
    inside: np.ndarray = times[times < total]
    return inside
