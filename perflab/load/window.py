"""Latencies counted into buckets: what one window of a run looked like, small enough for a pipe."""

from __future__ import annotations

import math
from collections.abc import Iterable

from perflab.load.guard import Reading
from perflab.load.plan import Progress
from perflab.units import NS_PER_MS

_SUB_BITS = 7
_SUB = 1 << _SUB_BITS


class Histogram:
    """Counts of whole nanoseconds in buckets at most 1/128 of their value wide.

    Examples
    --------
    >>> histogram = Histogram()
    >>> for ms in (1, 2, 3, 4): histogram.add(ms * 1_000_000)
    >>> histogram.count, round(histogram.quantile(0.5) / 1e6, 1), round(histogram.quantile(1.0) / 1e6, 1)
    (4, 2.0, 4.0)
    """

    __slots__ = ("_counts", "count")

    def __init__(self, pairs: Iterable[tuple[int, int]] = ()) -> None:
        self._counts: dict[int, int] = {}
        self.count = 0
        self.merge(pairs)

    def add(self, value_ns: int) -> None:
        """Count one value; negative ones count as 0."""
        shift = max(value_ns.bit_length() - _SUB_BITS - 1, 0) if value_ns > 0 else 0
        bucket = shift * _SUB + (value_ns >> shift) if value_ns > 0 else 0
        self._counts[bucket] = self._counts.get(bucket, 0) + 1
        self.count += 1

    def merge(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Add the counts of another, as `pairs` writes them."""
        for bucket, count in pairs:
            self._counts[bucket] = self._counts.get(bucket, 0) + count
            self.count += count

    def pairs(self) -> list[tuple[int, int]]:
        """Return (bucket, count), ascending."""
        return sorted(self._counts.items())

    def clear(self) -> None:
        """Forget all counts."""
        self._counts.clear()
        self.count = 0

    def at_least(self, value_ns: int) -> Histogram:
        """Return the counts of values whose bucket begins at or above a value."""
        return Histogram((bucket, count) for bucket, count in self.pairs() if _bounds(bucket)[0] >= value_ns)

    def quantile(self, q: float) -> float:
        """Return a quantile by nearest rank, in ns: the middle of its bucket; 0 if empty."""
        rank = max(math.ceil(q * self.count), 1)
        for bucket, count in self.pairs():
            rank -= count
            if rank <= 0:
                low, high = _bounds(bucket)
                return (low + high - 1) / 2
        return 0.0


class ShadowProbe:
    """A probe of the generated requests themselves, fed with the generator's progress.

    A reading covers what ended since the last one, and what has been waiting for its answer at least as
    long: a request that is not answered counts against every window it hangs through. Missed requests
    count as errors; they have no latency.
    """

    def __init__(self) -> None:
        self._ended = Histogram()
        self._outstanding = Histogram()
        self._errors = 0
        self._missed = 0
        self._missed_before = 0
        self._since_ns = 0
        self._now_ns = 0
        self._fed = False

    def feed(self, progress: Progress) -> None:
        """Take one line of progress."""
        self._ended.merge(progress.latencies)
        self._outstanding = Histogram(progress.outstanding)
        self._errors += progress.errors
        self._missed = progress.missed
        self._now_ns = progress.elapsed_ns
        self._fed = True

    async def __call__(self) -> Reading | None:
        """Return what was seen since the last call; None if no progress has come since."""
        return self.take()

    def take(self) -> Reading | None:
        """Return what was seen since the last call; None if no progress has come since."""
        if not self._fed:
            return None
        hanging = self._outstanding.at_least(max(self._now_ns - self._since_ns, 1))
        seen = Histogram(self._ended.pairs())
        seen.merge(hanging.pairs())
        missed = self._missed - self._missed_before
        p50, p95, p99 = (seen.quantile(q) / NS_PER_MS for q in (0.5, 0.95, 0.99))
        reading = Reading(seen.count + missed, self._errors, p50, p95, p99)
        self._ended.clear()
        self._errors, self._missed_before, self._since_ns, self._fed = 0, self._missed, self._now_ns, False
        return reading


def _bounds(bucket: int) -> tuple[int, int]:
    if bucket < 2 * _SUB:
        return bucket, bucket + 1
    shift = bucket // _SUB - 1
    low = (bucket - shift * _SUB) << shift
    return low, low + (1 << shift)
