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
from perflab.analysis.criticalpath import critical_path
from perflab.analysis.markup import html_result
from perflab.analysis.ranking import ALL
from perflab.analysis.trial import Trial, check_blocks, whole_rounds
from perflab.errors import AnalysisError

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

CONFIRMED, NOT_FELT, REFUTED, CANNOT_SAY = "confirmed", "not felt", "refuted", "cannot say"
MIN_ROUNDS = 4
MIN_REQUESTS = 20
"""Requests an entry operation needs at each delay."""

MOST_FAILED_RATIO = 0.01
"""Requests that failed, to those that count, above which nothing is said."""

MOST_STRADDLING_RATIO = 0.05
"""Requests that ended under the next block's delay, to all of them, above which nothing is said."""

UNFELT = 0.1
"""A slope that is none: a tenth of a millisecond for each at the entity."""

AT_LEAST = 0.5
"""The part of a predicted slope from which on a prediction counts as confirmed."""

_APPLIED = (0.7, 1.4)
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
        gain_high_ms`` (what an average request saves once the entity takes no time: ``slope * own_ms``, over
        all requests the mean of that over their entry operations);
        ``predicted_gain_ms`` (the same by the replay); ``verdict``: "confirmed" where the interval lies above
        half of what was predicted, "not felt" where less than 0.1 was predicted and the interval lies below
        that, "refuted" where it lies on the other side, else "cannot say"; ``evidence``, a sentence.
    applied_ratio : float
        How much longer a call took per millisecond it was told to wait, by its spans; NaN without calls.
    sentence : str
        The answer for all requests.
    counts : mapping of str to int
        ``rounds``, ``blocks``, ``requests`` in them, ``undelayed`` (those without delay), ``outside`` (due
        between blocks), ``lost`` (never sent), ``failed`` (that were not answered as they should be:
        timeouts have no time of their own, quick refusals too short a one), ``straddling`` (that ended when
        the next block's delay was in force).
    refused : tuple of str
        What was left out, or makes the answer "cannot say", as sentences.
    """

    entity: str
    table: pd.DataFrame
    applied_ratio: float
    sentence: str
    counts: Mapping[str, int]
    refused: tuple[str, ...]

    @classmethod
    def unknown(cls, entity: str, why: str) -> Causal:
        """Return that nothing can be said, and why."""
        table = pd.DataFrame({name: pd.Series(dtype=dtype) for name, dtype in _COLUMNS.items()})
        return cls(entity, table, math.nan, f"{entity}: {CANNOT_SAY}, {why}", {}, (why,))

    @property
    def verdict(self) -> str:
        """The verdict over all requests."""
        return str(self.table["verdict"].iloc[0]) if len(self.table) else CANNOT_SAY

    def __repr__(self) -> str:
        return f"Causal({self.sentence})"

    def _repr_html_(self) -> str:
        counted = ", ".join(f"{value:,} {name}" for name, value in self.counts.items())
        return html_result(self.sentence, self.table, _SHOWN, [*self.refused, counted])


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
        ``round delay_ns start_ns end_ns until_ns`` of each block that was measured, ``until_ns`` being when
        its delay was taken back: ``run.info["experiment"]`` has them. Requests belong to the block they were
        due in.

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
    played = check_blocks(blocks)
    path = critical_path(spans)
    if entity not in path.walked.entities.names:
        raise AnalysisError(
            f"there is no entity {entity!r} in this table; critical_path(spans).table has them"
        )
    trial = Trial.of(path, entity, played)
    rounds = whole_rounds(played)
    applied = _applied(trial, rounds)
    doubts = _doubts(rounds, applied, trial.counts)
    every = np.ones(len(trial.entry), dtype=bool)
    most_first = np.argsort(-np.bincount(trial.entry, minlength=len(trial.names)), kind="stable").tolist()
    chosen = [(ALL, every), *((trial.names[code], trial.entry == code) for code in most_first)]
    rows = [_row(trial, name, among, rounds, bool(doubts)) for name, among in chosen if among.any()]
    table = pd.DataFrame(rows, columns=list(_COLUMNS)).astype(_COLUMNS)
    said = f"{entity}: {rows[0]['verdict']}. {rows[0]['evidence']}" if rows else f"{entity}: {CANNOT_SAY}."
    said = " ".join([said, *doubts])
    return Causal(entity, table, applied, said, {"rounds": len(rounds), **trial.counts}, tuple(doubts))


def _applied(trial: Trial, rounds: Sequence[int]) -> float:
    """Return how much longer a call took per millisecond it was told to wait."""
    is_caller = trial.calls > 0
    calls = trial.calls[is_caller]
    if not len(calls) or not rounds:
        return math.nan
    own_of_call = np.divide(trial.own_ms, trial.calls, out=np.zeros_like(trial.own_ms), where=is_caller)
    slopes = trial.slopes(own_of_call, is_caller, rounds)
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
    if counts["straddling"] > MOST_STRADDLING_RATIO * max(1, counts["requests"]):
        doubts.append(
            f"{counts['straddling']} requests of the blocks ended when the next delay was in force: let "
            "blocks settle for longer."
        )
    if rounds and not _APPLIED[0] <= applied <= _APPLIED[1]:
        each = f"its calls took {applied:.2f} ms longer for each ms they were told to wait"
        seen = "no call of it was seen" if math.isnan(applied) else each
        doubts.append(f"The delay did not arrive as asked: {seen}.")
    return doubts


def _row(trial: Trial, name: str, among: Mask, rounds: Sequence[int], is_doubtful: bool) -> dict[str, Any]:
    bare = among & ~np.isnan(trial.longer_ms)
    sizes = [int((among & (trial.delay_ms == delay)).sum()) for delay in np.unique(trial.delay_ms)]
    requests, called = max(1, int(bare.sum())), max(1.0, trial.calls[bare].sum())
    own_ms = trial.own_ms[bare].sum() / called
    slopes = trial.slopes(trial.time_ms, among, rounds)
    slopes = slopes[np.isfinite(slopes)]
    slope, low, high = student_interval(slopes)
    gain, gain_low, gain_high = student_interval(_gains(trial, among, rounds))
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
        "gain_ms": gain,
        "gain_low_ms": gain_low if is_enough else math.nan,
        "gain_high_ms": gain_high if is_enough else math.nan,
        "predicted_gain_ms": trial.gone_ms[bare].sum() / requests,
    }
    row["verdict"] = _verdict(row) if is_enough and not is_doubtful else CANNOT_SAY
    row["evidence"] = _evidence(row, len(slopes), is_enough)
    return row


def _gains(trial: Trial, among: Mask, rounds: Sequence[int]) -> Floats:
    """Return, per round, what an average request would save: of each entry operation ``slope * own_ms``."""
    gains = np.zeros(len(rounds))
    for code in np.unique(trial.entry[among]).tolist():
        of_entry = trial.entry == code
        bare = of_entry & ~np.isnan(trial.longer_ms)
        if trial.calls[bare].sum() > 0:
            own_ms = trial.own_ms[bare].sum() / trial.calls[bare].sum()
            gains += of_entry.sum() / among.sum() * own_ms * trial.slopes(trial.time_ms, of_entry, rounds)
    return gains[np.isfinite(gains)]


def _first_slope(trial: Trial, among: Mask, rounds: Sequence[int]) -> float:
    delays = np.unique(trial.delay_ms)
    if len(delays) < 2:
        return math.nan
    slopes = trial.slopes(trial.time_ms, among & (trial.delay_ms <= delays[1]), rounds)
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
