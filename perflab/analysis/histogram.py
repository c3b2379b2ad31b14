"""Histograms of durations that can be added up: across row groups, hosts and runs.

The buckets are those of an HDR histogram (G. Tene): exact below 256 ns, then 256 equal buckets to each power
of two, so that a value is known to 0.2 % wherever it lies, and histograms made anywhere fit together. Only
buckets with something in them are kept. One object holds a histogram for each of many groups.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from perflab.analysis.quantile import nearest_rank, rank_bounds
from perflab.errors import AnalysisError

Int64s = npt.NDArray[np.int64]

SUB_BITS = 8
"""Buckets to a power of two, as a power of two."""

MAX_RELATIVE_ERROR = 2.0 ** -(SUB_BITS + 1)
"""Of a bucket's middle against any value in it."""

_SUB = 1 << SUB_BITS
_BUCKETS = (64 - SUB_BITS) * _SUB
_DENSE = 16


def bucket_of(value_ns: Int64s) -> Int64s:
    """Return the bucket of each value; a negative one counts as 0.

    Examples
    --------
    >>> bucket_of(np.array([-5, 0, 255, 256, 512, 513, 514])).tolist()
    [0, 0, 255, 256, 512, 512, 513]
    """
    value = np.maximum(value_ns, 0)
    # frexp is exact up to 2**53; beyond, rounding up to the next power of two would be one bucket too far
    exponent = np.frexp(np.where(value < 1 << 53, value, value >> 11).astype(np.float64))[1].astype(np.int64)
    exponent += np.where(value < 1 << 53, 0, 11)
    shift = np.maximum(exponent - SUB_BITS - 1, 0)
    buckets: Int64s = (value >> shift) + shift * _SUB
    return buckets


def bucket_bounds(bucket: Int64s) -> tuple[Int64s, Int64s]:
    """Return the smallest and the greatest value (ns) of each bucket.

    Examples
    --------
    >>> [bound.tolist() for bound in bucket_bounds(np.array([255, 512, 513]))]
    [[255, 512, 514], [255, 513, 515]]
    """
    shift = np.maximum(bucket // _SUB - 1, 0)
    low = (bucket - shift * _SUB) << shift
    return low, low + (np.int64(1) << shift) - 1


@dataclass(frozen=True, eq=False)
class Histograms:
    """One histogram per group, sparse.

    Attributes
    ----------
    group, bucket : int64[n]
        Sorted by both, each pair once.
    count : int64[n]
        Values in it, above 0.
    """

    group: Int64s
    bucket: Int64s
    count: Int64s

    @classmethod
    def of(cls, value_ns: Int64s, group: Int64s | None = None) -> Histograms:
        """Count values.

        Parameters
        ----------
        value_ns : int64[n]
            Durations; negative ones count as 0.
        group : int64[n], optional
            Number of each value's group, not negative; left out, all are of group 0.
        """
        bucket = bucket_of(np.asarray(value_ns, dtype=np.int64))
        if not len(bucket):
            return cls.merge()
        group = np.zeros_like(bucket) if group is None else group
        lowest, highest = int(bucket.min()), int(bucket.max())
        width = highest - lowest + 1
        if (int(group.max()) + 1) * width <= _DENSE * len(bucket):  # counting is faster than sorting
            counts = np.bincount(group * width + (bucket - lowest))
            used = np.flatnonzero(counts)
            return cls(used // width, used % width + lowest, counts[used])
        return cls._of_keys(*np.unique(group * _BUCKETS + bucket, return_counts=True))

    @classmethod
    def merge(cls, *parts: Histograms) -> Histograms:
        """Add histograms up, group by group; in whatever order and portions, the sum is the same."""
        if not parts:
            return cls._of_keys(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
        keys = np.concatenate([part.group * _BUCKETS + part.bucket for part in parts])
        counts = np.concatenate([part.count for part in parts])
        order = np.argsort(keys, kind="stable")
        keys, counts = keys[order], counts[order]
        begins = np.flatnonzero(np.diff(keys, prepend=-1))
        return cls._of_keys(keys[begins], np.add.reduceat(counts, begins) if len(keys) else counts)

    def regroup(self, new_group: Int64s) -> Histograms:
        """Return the same counts with group ``g`` called ``new_group[g]``; several may become one."""
        moved = Histograms(new_group[self.group], self.bucket, self.count)
        return Histograms.merge(moved)

    def among(self, chosen: npt.NDArray[np.bool_]) -> Histograms:
        """Return those of the groups that ``chosen`` says, by number."""
        kept = chosen[self.group]
        return Histograms(self.group[kept], self.bucket[kept], self.count[kept])

    def of_group(self, group: int) -> Histograms:
        """Return one group's histogram, as group 0."""
        begin, end = np.searchsorted(self.group, [group, group + 1])
        bucket = self.bucket[begin:end]
        return Histograms(np.zeros(len(bucket), dtype=np.int64), bucket, self.count[begin:end])

    def size(self, group: int = 0) -> int:
        """Return how many values a group has."""
        begin, end = np.searchsorted(self.group, [group, group + 1])
        return int(self.count[begin:end].sum())

    def quantile(self, quantile: float, group: int = 0) -> float:
        """Return a quantile in ns: the middle of the bucket the nearest rank is in; NaN without values.

        Off by at most `MAX_RELATIVE_ERROR` of the value itself.
        """
        size = self.size(group)
        return self._at_rank(nearest_rank(size, quantile), group) if size else math.nan

    def bounds(self, quantile: float, group: int = 0) -> tuple[float, float]:
        """Return the quantile's 95 % confidence interval in ns, by order statistics.

        NaN on a side where there are too few values to bound it.
        """
        size = self.size(group)
        low, high = rank_bounds(size, quantile)
        low_ns = self._at_rank(low, group) if 1 <= low <= size else math.nan
        return low_ns, self._at_rank(high, group) if 1 <= high <= size else math.nan

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` makes the same of, in plain lists."""
        return {
            "sub_bits": SUB_BITS,
            "group": self.group.tolist(),
            "bucket": self.bucket.tolist(),
            "count": self.count.tolist(),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Histograms:
        """Read what `to_json` gave.

        Raises
        ------
        AnalysisError
            If it is something else, or was made with other buckets.
        """
        try:
            sub_bits = content["sub_bits"]
            arrays = [np.array(content[name], dtype=np.int64) for name in ("group", "bucket", "count")]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise AnalysisError(f"these are no histograms: {error!r}") from error
        if sub_bits != SUB_BITS:
            raise AnalysisError(f"these histograms have 2**{sub_bits} buckets to a power of two, not {_SUB}")
        if len({len(array) for array in arrays}) > 1 or any((array < 0).any() for array in arrays):
            raise AnalysisError("these are no histograms: lengths differ, or something is negative")
        if (arrays[1] >= _BUCKETS).any():
            raise AnalysisError(f"these are no histograms: there are {_BUCKETS} buckets only")
        return cls.merge(cls(*arrays))

    @classmethod
    def _of_keys(cls, keys: Int64s, counts: Int64s) -> Histograms:
        return cls(keys // _BUCKETS, keys % _BUCKETS, counts.astype(np.int64))

    def _at_rank(self, rank: int, group: int) -> float:
        begin, end = np.searchsorted(self.group, [group, group + 1])
        place = begin + int(np.searchsorted(np.cumsum(self.count[begin:end]), rank))
        low, high = bucket_bounds(self.bucket[place : place + 1])
        return (float(low[0]) + float(high[0])) / 2
