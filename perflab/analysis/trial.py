"""The requests of an experiment's blocks, as arrays; what follows tells `perflab.analysis.causal`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from perflab.analysis.criticalpath import CriticalPath
from perflab.analysis.whatif_layout import Layout
from perflab.errors import AnalysisError
from perflab.units import NS_PER_MS

Floats = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

BLOCK_COLUMNS = ("round", "delay_ns", "start_ns", "end_ns", "until_ns")


def check_blocks(blocks: pd.DataFrame | Sequence[Mapping[str, int]]) -> pd.DataFrame:
    """Return blocks in order of time.

    Raises
    ------
    AnalysisError
        If a column is missing or holds no whole numbers, or blocks overlap.
    """
    played = pd.DataFrame(blocks, columns=None if len(blocks) else list(BLOCK_COLUMNS))
    missing = [name for name in BLOCK_COLUMNS if name not in played.columns]
    if missing:
        raise AnalysisError(f"blocks have the columns {list(BLOCK_COLUMNS)}; {missing} are missing")
    try:
        played = played[list(BLOCK_COLUMNS)].astype(np.int64)
    except (ValueError, TypeError) as error:
        raise AnalysisError(f"blocks hold whole numbers: {error}") from error
    played = played.sort_values("start_ns", ignore_index=True)
    begins, ends, until = (played[name].to_numpy() for name in ("start_ns", "end_ns", "until_ns"))
    is_apart = (ends > begins).all() and (until >= ends).all() and (begins[1:] >= until[:-1]).all()
    if not is_apart or (played["delay_ns"] < 0).any():
        raise AnalysisError("blocks end after they began, one after another, and no delay is below 0")
    return played


def whole_rounds(played: pd.DataFrame) -> list[int]:
    """Return the rounds that hold every delay, none included."""
    delays = set(played["delay_ns"])
    of_round = played.groupby("round")["delay_ns"].agg(set)
    return [
        int(number) for number, held in of_round.items() if held == delays and 0 in held and len(held) > 1
    ]


@dataclass(frozen=True, eq=False)
class Trial:
    """Requests that were due within blocks.

    Attributes
    ----------
    entry : int64[requests]
        The number of each one's entry operation in ``names``.
    names : list of str
    round : int64[requests]
    delay_ms, time_ms : float64[requests]
        What each call of the entity was told to wait, and how long the request took from when it was due.
    calls, own_ms : float64[requests]
        Calls of the entity, and the time of them all.
    longer_ms, gone_ms : float64[requests]
        Of requests without delay, by their replay: how much longer they take if each call waits for
        ``greatest_ms``, and how much shorter if the entity takes no time. NaN for the others.
    greatest_ms : float
        The greatest delay.
    counts : mapping of str to int
        As of `perflab.analysis.causal.Causal`, but ``rounds``.
    """

    entry: Int64s
    names: list[str]
    round: Int64s
    delay_ms: Floats
    time_ms: Floats
    calls: Floats
    own_ms: Floats
    longer_ms: Floats
    gone_ms: Floats
    greatest_ms: float
    counts: Mapping[str, int]

    @classmethod
    def of(cls, path: CriticalPath, entity: str, played: pd.DataFrame) -> Trial:
        """Look at what requests of blocks did at an entity.

        Parameters
        ----------
        path : CriticalPath
            Of the run's spans, which have the entity.
        entity : str
            What was delayed.
        played : pandas.DataFrame
            Of `check_blocks`.
        """
        due, took = _due_and_took(path)
        block = _block_of(due, played)
        names = path.walked.entities.names
        place = names.index(entity)
        layout = Layout.of(path.walked)
        request, code, calls, own = layout.own_work(len(names))
        is_its = code == place
        calls_of, own_of = np.zeros(len(block)), np.zeros(len(block))
        calls_of[request[is_its]] = calls[is_its]
        own_of[request[is_its]] = own[is_its] / NS_PER_MS
        delay_ms = np.concatenate([played["delay_ns"].to_numpy() / NS_PER_MS, [0.0]])[block]
        inside = block >= 0
        is_bare = inside & (delay_ms == 0)
        greatest = float(delay_ms.max(initial=0.0))
        longer = _longer_ns(layout, place, round(greatest * NS_PER_MS)) / NS_PER_MS
        gone = (
            layout.before_ns - layout.replay((np.arange(len(names)) != place).astype(np.float64))
        ) / NS_PER_MS
        entries: Any = path.entries["entry"].array
        return cls(
            entry=np.asarray(entries.codes, dtype=np.int64)[inside],
            names=[str(name) for name in entries.categories],
            round=np.concatenate([played["round"].to_numpy(), [-1]])[block][inside],
            delay_ms=delay_ms[inside],
            time_ms=took[inside] / NS_PER_MS,
            calls=calls_of[inside],
            own_ms=own_of[inside],
            longer_ms=np.where(is_bare, longer, math.nan)[inside],
            gone_ms=np.where(is_bare, gone, math.nan)[inside],
            greatest_ms=greatest,
            counts=_counts(path, played, block, due + took),
        )

    def slopes(self, values: Floats, among: Mask, rounds: Sequence[int]) -> Floats:
        """Return, per round, the slope of values over the delay, within entry operations; NaN for none."""
        slopes = []
        for number in rounds:
            chosen = among & (self.round == number)
            entry, delay = self.entry[chosen], self.delay_ms[chosen]
            size = np.bincount(entry, minlength=len(self.names))
            mean = np.bincount(entry, weights=delay, minlength=len(self.names)) / np.maximum(size, 1)
            centred = delay - mean[entry]
            spread = float(centred @ centred)
            slopes.append(float(centred @ values[chosen]) / spread if spread > 0 else math.nan)
        return np.array(slopes)


def _due_and_took(path: CriticalPath) -> tuple[Int64s, Int64s]:
    """Return when each request was due and how long it took from then on."""
    rows = path.walked.roots
    start, scheduled = (path.walked.spans[name].to_numpy()[rows] for name in ("start_ns", "scheduled_ns"))
    due = np.where(scheduled > 0, np.minimum(scheduled, start), start)
    return due, start + path.walked.duration_ns - due


def _block_of(moments: Int64s, played: pd.DataFrame) -> Int64s:
    """Return the block each moment is in, -1 for none."""
    if not len(played):
        return np.full(len(moments), -1, dtype=np.int64)
    at = np.searchsorted(played["start_ns"].to_numpy(), moments, side="right") - 1
    return np.where((at >= 0) & (moments < played["end_ns"].to_numpy()[at]), at, -1)


def _counts(path: CriticalPath, played: pd.DataFrame, block: Int64s, ended: Int64s) -> dict[str, int]:
    spans = path.walked.spans
    outcome, scheduled = spans["outcome"], spans["scheduled_ns"].to_numpy()
    is_missed = (outcome == "missed").to_numpy()
    has_failed = ~outcome.isin(["", "answered", "missed"]).to_numpy()
    until = np.concatenate([played["until_ns"].to_numpy(), [0]])[block]
    inside = int((block >= 0).sum())
    delay_ns = played["delay_ns"].to_numpy()[block[block >= 0]]
    return {
        "blocks": len(played),
        "requests": inside,
        "undelayed": int((delay_ns == 0).sum()),
        "outside": len(block) - inside,
        "lost": int((_block_of(scheduled[is_missed], played) >= 0).sum()),
        "failed": int((_block_of(scheduled[has_failed], played) >= 0).sum()),
        "straddling": int(((block >= 0) & (ended > until)).sum()),
    }


def _longer_ns(layout: Layout, place: int, delay_ns: int) -> Int64s:
    """Return how much longer each request would take if each call of an entity first waited for a while."""
    is_its, has_children = layout.code == place, layout.last > layout.first
    before, after = layout.before.copy(), layout.after.copy()
    after[is_its & ~has_children] += delay_ns
    before[layout.first[is_its & has_children]] += delay_ns
    longer: Int64s = layout.places(before, after)[1][layout.offsets[:-1]] - layout.before_ns
    return longer
