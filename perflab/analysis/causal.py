"""What a millisecond at an entity costs a request, by experiment: advice that was tried.

In a run's blocks (`perflab.load.experiment`) each call of one entity waits for a while longer, by turns. The
slope of a request's time over that delay is what a millisecond there costs: 1 for a call every request waits
for, 0 for one beside a longer branch, more with every call in a row and with a queue that grows. Turned
round it is what mending would gain: the virtual speed-up of causal profiling [1]_, which slows everything
but one place; here the place is slowed, which a service in production can be from outside.

Each round holds every delay once, so that every round has a slope of its own; the interval is Student's over
the rounds. Requests are compared within their entry operation and round, so that neither a mix that varies
nor a drift from round to round counts. A request's time begins when it was due.

References
----------
.. [1] C. Curtsinger, E. D. Berger, Coz: finding code that counts with causal profiling, SOSP 2015.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from perflab.analysis.bootstrap import student_interval
from perflab.analysis.criticalpath import CriticalPath, critical_path
from perflab.analysis.markup import html_result
from perflab.analysis.ranking import ALL
from perflab.analysis.whatif_layout import Layout
from perflab.errors import AnalysisError
from perflab.units import NS_PER_MS

Floats = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

CONFIRMED, NOT_FELT, REFUTED, CANNOT_SAY = "confirmed", "not felt", "refuted", "cannot say"
MIN_ROUNDS = 4
MIN_REQUESTS = 20
"""Requests an entry operation needs at each delay."""

MOST_FAILED_RATIO = 0.01
"""Requests that failed, to those that count, above which nothing is said."""

UNFELT = 0.1
"""A slope that is none: a tenth of a millisecond for each at the entity."""

AT_LEAST = 0.5
"""The part of a predicted slope from which on a prediction counts as confirmed."""

_APPLIED = (0.7, 1.4)
_BLOCK_COLUMNS = ("round", "delay_ns", "start_ns", "end_ns")
_SHOWN = ("entry", "verdict", "slope", "low", "high", "predicted", "gain_ms", "gain_low_ms", "gain_high_ms")
_COLUMNS = {
    "entry": "str", "requests": "int64", "calls_per_request": "float64", "own_ms": "float64",
    "slope": "float64", "low": "float64", "high": "float64", "first_slope": "float64", "predicted": "float64",
    "gain_ms": "float64", "gain_low_ms": "float64", "gain_high_ms": "float64",
    "predicted_gain_ms": "float64", "verdict": "str", "evidence": "str",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Causal:
    """What an experiment says about one entity.

    Attributes
    ----------
    entity : str
        The one that was delayed.
    table : pandas.DataFrame
        Over all requests (``entry`` "all"), then per entry operation, most requests first: ``entry
        requests`` (in the blocks); ``calls_per_request`` and ``own_ms`` (of the entity, without delay: calls,
        and the time of one of them); ``slope`` with ``low high`` (milliseconds a request took longer for each
        its calls were delayed; 95 % interval over rounds); ``first_slope`` (the same between no delay and the
        least: where it differs, requests have slack or queues grow); ``predicted`` (the slope by the replay
        of requests without delay, see `perflab.analysis.whatif.what_if`); ``gain_ms gain_low_ms
        gain_high_ms`` (what an average request saves once the entity takes no time: ``slope * own_ms``);
        ``predicted_gain_ms`` (the same by the replay); ``verdict``: "confirmed" where the interval lies above
        half of what was predicted, "not felt" where less than 0.1 was predicted and the interval lies below
        that, "refuted" where it lies on the other side, else "cannot say"; ``evidence``, a sentence.
    applied_ratio : float
        How much longer a call took per millisecond it was told to wait, by its spans; NaN without calls.
    sentence : str
        The answer for all requests.
    counts : mapping of str to int
        ``rounds``, ``blocks``, ``requests`` in them, ``outside`` (requests due between blocks), ``lost``
        (requests in blocks that were never sent), ``failed`` (that were not answered as they should be:
        timeouts have no time of their own, quick refusals too short a one).
    refused : tuple of str
        What was left out, or makes the answer "cannot say", as sentences.
    """

    entity: str
    table: pd.DataFrame
    applied_ratio: float
    sentence: str
    counts: Mapping[str, int]
    refused: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """The verdict over all requests."""
        return str(self.table["verdict"].iloc[0]) if len(self.table) else CANNOT_SAY

    def __repr__(self) -> str:
        return f"Causal({self.sentence})"

    def _repr_html_(self) -> str:
        counted = ", ".join(f"{value:,} {name}" for name, value in self.counts.items())
        return html_result(self.sentence, self.table, _SHOWN, [*self.refused, counted])


@dataclass(frozen=True, eq=False)
class _Trial:
    """Requests within the blocks, as arrays."""

    entry: Int64s
    names: list[str]
    round: Int64s
    delay_ms: Floats
    time_ms: Floats
    calls: Floats
    own_ms: Floats
    longer_ms: Floats
    """By the replay, with the greatest delay; of requests without delay only."""
    gone_ms: Floats
    """By the replay, without the entity; likewise."""
    greatest_ms: float


def fit_causal(
    spans: pd.DataFrame, entity: str, blocks: pd.DataFrame | Sequence[Mapping[str, int]]
) -> Causal:
    """Fit what a millisecond at an entity costs requests, from a run in which it was delayed by turns.

    Parameters
    ----------
    spans : pandas.DataFrame
        The run's span table. Where it holds marked and real traces, only the marked ones are looked at.
    entity : str
        What was delayed.
    blocks : pandas.DataFrame or sequence of mapping
        ``round delay_ns start_ns end_ns`` of each block that was measured: ``run.info["experiment"]`` has
        them. Requests belong to the block they were due in.

    Returns
    -------
    Causal
        With "cannot say" and the reason in ``refused`` where there are too few rounds or requests, requests
        were lost, or the delay did not show in the entity's own spans.

    Raises
    ------
    AnalysisError
        If the blocks have other columns, or the entity is not in the table.
    SchemaError
        If ``spans`` is no span table.
    """
    played = _checked(blocks)
    path = critical_path(spans)
    if entity not in path.walked.entities.names:
        raise AnalysisError(
            f"there is no entity {entity!r} in this table; critical_path(spans).table has them"
        )
    block, counts = _place(path, played)
    trial = _trial(path, entity, played, block)
    rounds = _whole_rounds(played)
    applied = _applied(trial, rounds)
    doubts = _doubts(rounds, applied, counts)
    entries = [
        trial.names[code]
        for code in np.argsort(-np.bincount(trial.entry, minlength=len(trial.names)), kind="stable")
    ]
    chosen = [
        np.ones(len(trial.entry), dtype=bool),
        *(trial.entry == trial.names.index(name) for name in entries),
    ]
    rows = [
        _row(trial, name, among, rounds, bool(doubts))
        for name, among in zip([ALL, *entries], chosen, strict=True)
        if among.any()
    ]
    table = pd.DataFrame(rows, columns=list(_COLUMNS)).astype(_COLUMNS)
    said = f"{entity}: {rows[0]['verdict']}. {rows[0]['evidence']}" if rows else f"{entity}: {CANNOT_SAY}."
    said = f"{said} {' '.join(doubts)}" if doubts else said
    return Causal(entity, table, applied, said, {"rounds": len(rounds), **counts}, tuple(doubts))


def _checked(blocks: pd.DataFrame | Sequence[Mapping[str, int]]) -> pd.DataFrame:
    played = pd.DataFrame(blocks, columns=None if len(blocks) else list(_BLOCK_COLUMNS))
    missing = [name for name in _BLOCK_COLUMNS if name not in played.columns]
    if missing:
        raise AnalysisError(f"blocks have the columns {list(_BLOCK_COLUMNS)}; {missing} are missing")
    played = played[list(_BLOCK_COLUMNS)].astype(np.int64).sort_values("start_ns", ignore_index=True)
    begins, ends = played["start_ns"].to_numpy(), played["end_ns"].to_numpy()
    if (ends <= begins).any() or (begins[1:] < ends[:-1]).any() or (played["delay_ns"] < 0).any():
        raise AnalysisError("blocks end after they began, one after another, and no delay is below 0")
    return played


def _whole_rounds(played: pd.DataFrame) -> list[int]:
    """Return the rounds that hold every delay."""
    delays = set(played["delay_ns"])
    of_round = played.groupby("round")["delay_ns"].agg(set)
    return [
        int(number) for number, held in of_round.items() if held == delays and 0 in held and len(held) > 1
    ]


def _due_ns(path: CriticalPath) -> tuple[Int64s, Int64s]:
    """Return when each request was due and how long it took from then on."""
    rows = path.walked.roots
    start, scheduled = (path.walked.spans[name].to_numpy()[rows] for name in ("start_ns", "scheduled_ns"))
    due = np.where(scheduled > 0, np.minimum(scheduled, start), start)
    return due, start + path.entries["duration_ns"].to_numpy() - due


def _place(path: CriticalPath, played: pd.DataFrame) -> tuple[Int64s, dict[str, int]]:
    """Return each request's block (-1 for none), and what is counted."""
    due, _ = _due_ns(path)
    begins, ends = played["start_ns"].to_numpy(), played["end_ns"].to_numpy()

    def block_of(moments: Int64s) -> Int64s:
        at = np.searchsorted(begins, moments, side="right") - 1
        within = (
            (at >= 0) & (moments < ends[np.maximum(at, 0)]) if len(begins) else np.zeros(len(at), dtype=bool)
        )
        return np.where(within, at, -1)

    block = block_of(due)
    spans = path.walked.spans
    outcome, scheduled = spans["outcome"], spans["scheduled_ns"].to_numpy()
    is_missed = (outcome == "missed").to_numpy()
    has_failed = ~outcome.isin(["", "answered", "missed"]).to_numpy()
    inside = int((block >= 0).sum())
    return block, {
        "blocks": len(played),
        "requests": inside,
        "outside": len(block) - inside,
        "lost": int((block_of(scheduled[is_missed]) >= 0).sum()),
        "failed": int((block_of(scheduled[has_failed]) >= 0).sum()),
    }


def _trial(path: CriticalPath, entity: str, played: pd.DataFrame, block: Int64s) -> _Trial:
    names = path.walked.entities.names
    place = names.index(entity)
    layout = Layout.of(path.walked)
    request, code, calls, own = layout.own_work(len(names))
    is_its = code == place
    calls_of, own_of = np.zeros(len(block)), np.zeros(len(block))
    calls_of[request[is_its]] = calls[is_its]
    own_of[request[is_its]] = own[is_its] / NS_PER_MS
    delay_ms = np.concatenate([played["delay_ns"].to_numpy() / NS_PER_MS, [0.0]])[block]
    is_bare = (block >= 0) & (delay_ms == 0)
    greatest = float(delay_ms.max(initial=0.0))
    longer = _longer_ns(layout, place, round(greatest * NS_PER_MS)) / NS_PER_MS
    factor = np.ones(len(names))
    factor[place] = 0.0
    gone = (layout.before_ns - layout.replay(factor)) / NS_PER_MS
    entries: Any = path.entries["entry"].array
    inside = block >= 0
    return _Trial(
        entry=np.asarray(entries.codes, dtype=np.int64)[inside],
        names=[str(name) for name in entries.categories],
        round=np.concatenate([played["round"].to_numpy(), [-1]])[block][inside],
        delay_ms=delay_ms[inside],
        time_ms=(_due_ns(path)[1] / NS_PER_MS)[inside],
        calls=calls_of[inside],
        own_ms=own_of[inside],
        longer_ms=np.where(is_bare, longer, math.nan)[inside],
        gone_ms=np.where(is_bare, gone, math.nan)[inside],
        greatest_ms=greatest,
    )


def _longer_ns(layout: Layout, place: int, delay_ns: int) -> Int64s:
    """Return how much longer each request would take if each call of an entity first waited for a while."""
    is_its, has_children = layout.code == place, layout.last > layout.first
    before, after = layout.before.copy(), layout.after.copy()
    after[is_its & ~has_children] += delay_ns
    before[layout.first[is_its & has_children]] += delay_ns
    longer: Int64s = layout.places(before, after)[1][layout.offsets[:-1]] - layout.before_ns
    return longer


def _slopes(trial: _Trial, values: Floats, among: Mask, rounds: Sequence[int]) -> Floats:
    """Return, per round, the slope of values over the delay, within entry operations."""
    slopes = []
    for number in rounds:
        chosen = among & (trial.round == number)
        entry, delay = trial.entry[chosen], trial.delay_ms[chosen]
        size = np.bincount(entry, minlength=len(trial.names))
        mean = np.bincount(entry, weights=delay, minlength=len(trial.names)) / np.maximum(size, 1)
        centred = delay - mean[entry]
        spread = float(centred @ centred)
        slopes.append(float(centred @ values[chosen]) / spread if spread > 0 else math.nan)
    return np.array(slopes)


def _applied(trial: _Trial, rounds: Sequence[int]) -> float:
    """Return how much longer a call took per millisecond it was told to wait."""
    is_caller = trial.calls > 0
    calls = trial.calls[is_caller]
    if not len(calls) or not rounds:
        return math.nan
    own_of_call = np.divide(trial.own_ms, trial.calls, out=np.zeros_like(trial.own_ms), where=is_caller)
    slopes = _slopes(trial, own_of_call, is_caller, rounds)
    return float(np.nanmean(slopes)) if np.isfinite(slopes).any() else math.nan


def _doubts(rounds: Sequence[int], applied: float, counts: Mapping[str, int]) -> list[str]:
    """Say why the experiment cannot tell anything."""
    doubts = []
    if len(rounds) < MIN_ROUNDS:
        doubts.append(f"Only {len(rounds)} whole rounds were played; {MIN_ROUNDS} are needed.")
    if counts["lost"]:
        doubts.append(
            f"{counts['lost']} requests of the blocks were never sent, so that their time is not known."
        )
    if counts["failed"] > MOST_FAILED_RATIO * max(1, counts["requests"]):
        doubts.append(f"{counts['failed']} requests of the blocks failed, so that their time tells nothing.")
    if rounds and not _APPLIED[0] <= applied <= _APPLIED[1]:
        each = f"its calls took {applied:.2f} ms longer for each ms they were told to wait"
        seen = "no call of it was seen" if math.isnan(applied) else each
        doubts.append(f"The delay did not arrive as asked: {seen}.")
    return doubts


def _row(trial: _Trial, name: str, among: Mask, rounds: Sequence[int], is_doubtful: bool) -> dict[str, Any]:
    bare = among & ~np.isnan(trial.longer_ms)
    sizes = [int((among & (trial.delay_ms == delay)).sum()) for delay in np.unique(trial.delay_ms)]
    requests, called = max(1, int(bare.sum())), max(1.0, trial.calls[bare].sum())
    own_ms = trial.own_ms[bare].sum() / called
    slopes = _slopes(trial, trial.time_ms, among, rounds)
    slopes = slopes[np.isfinite(slopes)]
    slope, low, high = student_interval(slopes)
    is_enough = len(slopes) >= MIN_ROUNDS and min(sizes) >= MIN_REQUESTS
    if not is_enough:
        low = high = math.nan
    row = {
        "entry": name,
        "requests": int(among.sum()),
        "calls_per_request": trial.calls[bare].sum() / requests,
        "own_ms": own_ms,
        "slope": slope,
        "low": low,
        "high": high,
        "first_slope": _first_slope(trial, among, rounds),
        "predicted": trial.longer_ms[bare].sum() / requests / trial.greatest_ms
        if trial.greatest_ms > 0
        else 0.0,
        "gain_ms": slope * own_ms,
        "gain_low_ms": low * own_ms,
        "gain_high_ms": high * own_ms,
        "predicted_gain_ms": trial.gone_ms[bare].sum() / requests,
    }
    row["verdict"] = _verdict(row) if is_enough and not is_doubtful else CANNOT_SAY
    row["evidence"] = _evidence(row, len(slopes), is_enough)
    return row


def _first_slope(trial: _Trial, among: Mask, rounds: Sequence[int]) -> float:
    delays = np.unique(trial.delay_ms)
    if len(delays) < 2:
        return math.nan
    slopes = _slopes(trial, trial.time_ms, among & (trial.delay_ms <= delays[1]), rounds)
    return float(np.nanmean(slopes)) if np.isfinite(slopes).any() else math.nan


def _verdict(row: Mapping[str, Any]) -> str:
    low, high, predicted = row["low"], row["high"], row["predicted"]
    if predicted < UNFELT:
        return NOT_FELT if high <= UNFELT else REFUTED if low > UNFELT else CANNOT_SAY
    least = AT_LEAST * predicted
    return CONFIRMED if low >= least else REFUTED if high < least else CANNOT_SAY


def _evidence(row: Mapping[str, Any], rounds: int, is_enough: bool) -> str:
    who = "an average request" if row["entry"] == ALL else f"{row['entry']!r}"
    if not is_enough:
        return (
            f"Too few rounds or requests for an interval: {row['requests']} requests in {rounds} rounds, "
            f"{MIN_REQUESTS} at each delay are needed."
        )
    text = (
        f"For each ms its calls were delayed, {who} took {row['slope']:.2f} ms longer (95 % interval "
        f"{row['low']:.2f} to {row['high']:.2f}, {rounds} rounds); the traces said {row['predicted']:.2f}. "
    )
    return text + (
        f"Of {row['calls_per_request'] * row['own_ms']:.3g} ms it works per request, mending it would gain "
        f"{row['gain_ms']:.3g} ms ({row['gain_low_ms']:.3g} to {row['gain_high_ms']:.3g}); the traces said "
        f"{row['predicted_gain_ms']:.3g}."
    )
