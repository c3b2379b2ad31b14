"""The bottleneck: the one place whose mending would help requests most, or that there is none.

Entities are ranked by the gain from removing their exclusive critical time, over all requests and per
entry operation, with intervals. Whether the first of a ranking is a bottleneck or only the largest of many
is decided by the rule in `perflab.analysis.ranking`; "nothing stands out" and "not enough traces" are
answers.

An entity is named overall if it stands out over all requests, or if it stands out among the requests of one
entry operation and is at least 15 % of all requests' time: a place that ruins a rare operation is the
bottleneck of that operation (`Bottlenecks.by_entry` says so), not of the system. Of several, the one with
the greatest gain over all traffic is named.

If that is an edge whose gap grows with the calls in flight, requests queue there because the callee's
workers are busy. Then what they are busy with is named, if one entity is at least half of it: mending it
lets the queue go, too (see `perflab.analysis.waiting`). If it is an operation most of whose own time lies
between calls that it makes over and over, these calls are named: that time goes with them (see
`perflab.analysis.repeats`). The ranking is not touched by this, but against a baseline: there what is named
comes first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from perflab.analysis.cohort import split_cohorts
from perflab.analysis.criticalpath import CriticalPath, critical_path
from perflab.analysis.difference import compare_paths, empty_differences
from perflab.analysis.entity import OPERATION
from perflab.analysis.markup import html_result, show_counts
from perflab.analysis.pathtable import Walked
from perflab.analysis.pattern import WAITING, Diagnosis, Finding
from perflab.analysis.ranking import ALL, empty_ranking, rank, set_apart
from perflab.analysis.regression import find_regressions, put_first, rank_by_regression
from perflab.analysis.repeats import Loop, find_loop
from perflab.analysis.verdict import evidence, sentence_of_change, sentence_of_share
from perflab.analysis.waiting import Waiting

Mask = npt.NDArray[np.bool_]

NAMED = "named"
NOTHING = "nothing stands out"
TOO_FEW = "not enough traces"

MIN_REQUESTS = 30
"""Answered requests below which nothing is ranked at all."""

MIN_ENTRY_REQUESTS = 20
"""Answered requests below which an entry operation gets no ranking of its own."""

MIN_WEIGHT = 0.15
"""Share of all requests' time that an entity standing out in one entry operation must have to be named."""

_SHOWN = ("rank", "entity", "gain_ms", "low_ms", "high_ms", "share_ratio", "pattern", "advice")
_TEXTS = ("pattern", "evidence", "advice")


@dataclass(frozen=True, eq=False)
class Bottlenecks:
    """Places ranked by what mending them would buy.

    Attributes
    ----------
    table : pandas.DataFrame
        Over all requests, greatest gain first (with a baseline what got slower before the rest): the
        columns of ``CriticalPath.table`` and ``entry`` ("all"), ``rank``, ``gain_ms`` (time an average
        request would save if the entity took none, or with a baseline, as much as there), ``low_ms
        high_ms`` (95 % interval; NaN where an entity could not be compared), ``share_low_ratio
        share_high_ratio`` (of ``share_ratio``), ``calls_per_request``, ``stands_out``, ``pattern`` (""
        where none is recognised), ``evidence``, ``advice``. Empty where there are not enough requests.
    by_entry : pandas.DataFrame
        The same per entry operation with enough requests, each ranked on its own; gain and shares are of
        that operation's requests. The operation with most time in all comes first.
    first : dict or None
        The named bottleneck: its row of ``table`` and ``in_entry in_entry_share_ratio in_entry_gain_ms``,
        of the entry operation it costs most in all. If it is named for the queue it causes, ``waits_at
        waits_ms holds_ratio`` say where, how long, and its part in it; if for what lies between its calls,
        ``loops_in loop_ms`` say in which operation, and how much of its time.
    answer : str
        "named", "nothing stands out" (with a baseline: nothing got slower) or "not enough traces".
    sentence : str
        The answer in plain English.
    differences : pandas.DataFrame
        Against the baseline, see `perflab.analysis.difference.compare_paths`; empty without one.
    counts : mapping of str to int
        As ``CriticalPath.counts``.
    refused : tuple of str
        What was left out or not ranked, and why.
    """

    table: pd.DataFrame
    by_entry: pd.DataFrame
    first: dict[str, Any] | None
    answer: str
    sentence: str
    differences: pd.DataFrame
    counts: Mapping[str, int]
    refused: tuple[str, ...]
    path: CriticalPath = field(repr=False)

    def __repr__(self) -> str:
        return f"Bottlenecks({self.answer}: {self.sentence})"

    def _repr_html_(self) -> str:
        return html_result(self.sentence, self.table, _SHOWN, [*self.refused, show_counts(self.counts)])


def bottlenecks(spans: pd.DataFrame, baseline: pd.DataFrame | str | None = None) -> Bottlenecks:
    """Rank where requests spend their critical time, and name the bottleneck if there is one.

    Parameters
    ----------
    spans : pandas.DataFrame
        A span table. Where it holds marked and real traces, only the marked ones are analysed.
    baseline : pandas.DataFrame or {'fast', 'unloaded'}, optional
        Another span table, of the same system before a change, with less load or without the fault. What
        got slower since comes first then, see `perflab.analysis.regression`. Or a cohort of ``spans``: the
        slow requests are held against the fast, or those with many others in flight against those with few,
        see `perflab.analysis.cohort`.

    Returns
    -------
    Bottlenecks
        Without a baseline ``gain_ms`` is the sum of an entity's exclusive critical time over the number of
        requests; with one, the time an average request would save if the entity were as it was. Its
        limits: what is mended may leave another branch critical (then less is gained), and queues shrink
        with it (then more is). Intervals are by circular block bootstrap over time, seeded: the same
        table gives the same numbers.

    Raises
    ------
    SchemaError
        If one of them is no span table.

    Examples
    --------
    >>> from perflab.testing import S, spans
    >>> def request(at):
    ...     query = S("stock", "SELECT stock", at + 2, at + 9, kind="client")
    ...     return S("stock", "GET /stock", at, at + 10, kind="server", children=[query])
    >>> found = bottlenecks(spans([request(20 * place) for place in range(40)]))
    >>> found.answer, found.first["entity"], found.first["gain_ms"]
    ('named', 'stock: SELECT stock', 7.0)
    """
    note: tuple[str, ...] = ()
    if isinstance(baseline, str):
        spans, baseline, told = split_cohorts(spans, baseline)
        note = (told,)
    path = critical_path(spans)
    refused = [*note, *path.refused]
    differences = empty_differences()
    if baseline is not None:
        compared, not_compared = compare_paths(
            critical_path(baseline), path, MIN_ENTRY_REQUESTS, with_few=True
        )
        differences = compared[compared["p_value"].notna()].reset_index(drop=True)
        refused.extend(not_compared)
        if differences.empty:
            refused.append("nothing could be compared with the baseline: ranked as without one")
    requests = len(path.entries)
    if requests < MIN_REQUESTS:
        return too_few(requests, path, path.counts, tuple(refused), differences)
    entry = path.entries["entry"].array
    by_entry = path.entries.groupby("entry", observed=True)["duration_ns"].agg(["size", "sum"])
    weights = {str(name): (int(size), int(total)) for name, size, total in by_entry.itertuples()}

    def ranked(name: str = ALL) -> pd.DataFrame:
        among = np.ones(requests, dtype=bool) if name == ALL else np.asarray(entry == name)
        table = rank(path, among, name)
        if differences.empty:
            return table
        sizes = {one: size for one, (size, _) in weights.items() if name in (ALL, one)}
        return rank_by_regression(table, find_regressions(compared, sizes))

    rankings, not_ranked = rank_entries(weights, ranked)
    return conclude(ranked(), rankings, path, path.counts, (*refused, *not_ranked), differences)


def too_few(
    requests: int,
    path: CriticalPath,
    counts: Mapping[str, int],
    refused: tuple[str, ...],
    differences: pd.DataFrame,
) -> Bottlenecks:
    """Answer that there are not enough requests to rank anything.

    Parameters
    ----------
    requests : int
        How many there are.
    path : CriticalPath
        What could be walked.
    counts, refused, differences
        As of `Bottlenecks`.
    """
    sentence = f"Not enough traces: {requests} answered requests, {MIN_REQUESTS} are needed to rank."
    empty = empty_ranking(path).assign(**{name: pd.Series(dtype="str") for name in _TEXTS})
    return Bottlenecks(empty, empty, None, TOO_FEW, sentence, differences, counts, (*refused, sentence), path)


def conclude(
    table: pd.DataFrame,
    rankings: Sequence[pd.DataFrame],
    path: CriticalPath,
    counts: Mapping[str, int],
    refused: tuple[str, ...],
    differences: pd.DataFrame,
) -> Bottlenecks:
    """Say what kind of trouble the ranked places are, and name the bottleneck if there is one.

    Parameters
    ----------
    table : pandas.DataFrame
        The ranking over all requests, see `perflab.analysis.ranking.rank`.
    rankings : sequence of pandas.DataFrame
        Those of single entry operations.
    path : CriticalPath
        The walked traces they are of, or some of them.
    counts, refused, differences
        As of `Bottlenecks`.
    """
    by_entry = pd.concat(rankings, ignore_index=True) if rankings else empty_ranking(path)
    if differences.empty:
        table["stands_out"] |= _stands_out_with_weight(table, by_entry)
    waiting = Waiting(path.walked)
    diagnosis = Diagnosis(path.walked, waiting)
    findings = {row["entity"]: diagnosis.find(row) for row in table.to_dict("records")}
    table, by_entry = _explain(table, findings), _explain(by_entry, findings)
    first = _name(table, by_entry, waiting, path.walked)
    if first:
        table["stands_out"] |= table["entity"] == first["entity"]
    if first and not differences.empty:
        table = put_first(table, first["entity"])
    return Bottlenecks(
        table=table,
        by_entry=by_entry,
        first=first,
        answer=NAMED if first else NOTHING,
        sentence=sentence_of_share(first, table) if differences.empty else sentence_of_change(first, table),
        differences=differences,
        counts=counts,
        refused=refused,
        path=path,
    )


def rank_entries(
    weights: Mapping[str, tuple[int, int]], ranking: Callable[[str], pd.DataFrame]
) -> tuple[list[pd.DataFrame], list[str]]:
    """Rank each entry operation on its own.

    Parameters
    ----------
    weights : mapping of str to (int, int)
        The requests of each entry operation, and their summed duration.
    ranking : callable
        Returns an entry operation's ranking.

    Returns
    -------
    rankings : list of pandas.DataFrame
        Those of the operations with enough requests, heaviest first.
    refused : list of str
        Why others have none.
    """
    heaviest_first = sorted(weights.items(), key=lambda item: (-item[1][1], item[0]))
    tables, refused = [], []
    for name, (requests, _) in heaviest_first:
        if requests < MIN_ENTRY_REQUESTS:
            refused.append(
                f"{name}: not ranked on its own, {requests} answered requests of {MIN_ENTRY_REQUESTS} needed"
            )
        else:
            tables.append(ranking(name))
    return tables, refused


def _stands_out_with_weight(table: pd.DataFrame, by_entry: pd.DataFrame) -> Mask:
    in_entry = set(by_entry.loc[by_entry["stands_out"], "entity"])
    weighty: Mask = (table["entity"].isin(in_entry) & (table["share_ratio"] >= MIN_WEIGHT)).to_numpy()
    return weighty


def _explain(table: pd.DataFrame, findings: Mapping[str, Finding]) -> pd.DataFrame:
    rows = table.to_dict("records")
    found = [findings[row["entity"]] for row in rows]
    return table.drop(columns="change", errors="ignore").assign(
        pattern=[finding.pattern for finding in found],
        evidence=[evidence(row, finding.evidence) for row, finding in zip(rows, found, strict=True)],
        advice=[finding.advice for finding in found],
    )


def _name(
    table: pd.DataFrame, by_entry: pd.DataFrame, waiting: Waiting, walked: Walked
) -> dict[str, Any] | None:
    """Return the row of the greatest gain that stands out, or of what its time goes with."""
    apart = table[table["stands_out"]]
    top = (table if apart.empty else apart).head(1).to_dict("records")
    loop = find_loop(walked, top[0]["entity"]) if top and top[0]["kind"] == OPERATION else None
    if not top or (apart.empty and not (loop and _stands_out_with_loop(table, loop))):
        return None
    row: dict[str, Any] = top[0]
    if row["pattern"] == WAITING and (holder := waiting.holder(row["entity"])):
        edge = row
        row = table[table["entity"] == holder.entity].to_dict("records")[0]
        row["waits_at"], row["waits_ms"] = edge["entity"], edge["gain_ms"]
        row["holds_ratio"] = holder.share_ratio
        row["evidence"] += (
            f"; requests wait {edge['gain_ms']:.3g} ms on average at {edge['entity']} to be accepted, and "
            f"this is {holder.share_ratio:.0%} of what the workers behind it are busy with"
        )
    elif loop:
        row = table[table["entity"] == loop.entity].to_dict("records")[0]
        row["loops_in"], row["loop_ms"] = top[0]["entity"], loop.between_ms
        row["evidence"] += (
            f"; {loop.between_ms:.3g} ms per request, {loop.between_ratio:.0%} of the own time of "
            f"{top[0]['entity']}, lie between such calls and go with them"
        )
    row["stands_out"] = True
    of_entity = by_entry[by_entry["entity"] == row["entity"]]
    # where it stands out before where it does not, then by its time in all
    worst = of_entity.sort_values(["stands_out", "exclusive_ns"], ascending=False).head(1)
    for entry in worst.to_dict("records"):
        row["in_entry"] = entry["entry"]
        row["in_entry_share_ratio"] = entry["share_ratio"]
        row["in_entry_gain_ms"] = entry["gain_ms"]
    return row


def _stands_out_with_loop(table: pd.DataFrame, loop: Loop) -> bool:
    """Tell whether calls stand out together with the time of the first operation that goes with them."""
    share, low = (table[name].to_numpy().copy() for name in ("share_ratio", "share_low_ratio"))
    calls = int(np.flatnonzero(table["entity"] == loop.entity)[0])
    for values in (share, low):
        values[calls] += loop.between_ratio * values[0]
        values[0] *= 1 - loop.between_ratio
    order = np.argsort(-share, kind="stable")
    return bool(order[0] == calls and set_apart(share[order], low[order])[0])
