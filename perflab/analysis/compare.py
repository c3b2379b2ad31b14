"""What changed between two runs: better, worse, the same, or not to be told.

Time is compared per entry operation and entity (exclusive time on the critical path), latency and errors
per entry operation and over all requests. All of it is asked at once, so all p-values are adjusted together
(Benjamini-Hochberg): of what is called better or worse at most 5 % is expected to be so by chance. What
differs between any two runs of the same thing (another day, another machine) is not chance in this sense:
compare two runs of the same version to see how much that is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from perflab.analysis.bootstrap import false_discovery
from perflab.analysis.difference import compare_paths
from perflab.analysis.drawn import (
    BETTER,
    CANNOT_SAY,
    METRICS,
    MIN_REQUESTS,
    SAME,
    WORSE,
    Interval,
    Pair,
    verdict_of,
)
from perflab.analysis.latencychange import latency_changes, measure_latency
from perflab.analysis.markup import html_result, show_counts
from perflab.analysis.population import match_traffic
from perflab.analysis.side import ALL, OF_ENTITIES, Side, measure_entity, measure_requests
from perflab.analysis.structure import changed_structure
from perflab.errors import AnalysisError
from perflab.trace.schema import check_spans

Floats = npt.NDArray[np.float64]

_SHOWN = (
    "entry",
    "entity",
    "before_ms",
    "after_ms",
    "delta_ms",
    "low_ms",
    "high_ms",
    "effect_size",
    "verdict",
)
_SHOWN_LATENCY = (
    *("entry", "quantity", "before", "after", "change_ratio", "change_low_ratio", "change_high_ratio"),
    "verdict",
)
_SHOWN_STRUCTURE = ("entity", "kind", "requests_before", "requests_after", "verdict")
_NAMES_TOLD = 12
_CHANGES_TOLD = 3
_ORDER = (WORSE, BETTER, CANNOT_SAY, SAME)


@dataclass(frozen=True, eq=False)
class Comparison:
    """What changed between two sides.

    Attributes
    ----------
    table : pandas.DataFrame
        One row per entry operation and entity, worse before better before the rest, within these the
        greatest difference first: ``entry entity``; ``before_ms after_ms delta_ms`` (exclusive time per
        request) with ``low_ms high_ms`` (95 % interval of the difference); ``margin_ms`` (a difference
        that makes none in practice: the greatest of 0.05 ms, 5 % of the lesser of the two and 1 % of the
        operation's mean duration); ``effect_size`` (Cohen's d); ``calls_before calls_after`` (per
        request); ``more_calls_ms slower_calls_ms structure_ms`` (parts of the difference) and
        ``structure`` (which side lacks the entity); ``request_delta_ms request_low_ms request_high_ms
        request_margin_ms`` (of the requests as a whole); ``p_value``; ``q_value`` (adjusted over the rows of
        ``table`` and ``latency``); ``verdict``: "better", "worse", "same" (the interval lies within the
        margin) or "cannot say" (it does not, and there is no change beyond chance and margin; or the
        critical path may only have moved here from calls beside it, as no request is surely longer or
        shorter; or there are too few requests); ``evidence``, a sentence. NaN where there is nothing to tell.
    latency : pandas.DataFrame
        One row per entry operation (and "all", whose mix of operations is compared along with them) and
        ``quantity``: "p50", "p95", "p99" (``unit`` "ms") and "error_ratio" ("ratio"). ``before after
        delta`` with ``low high``, ``change_ratio`` (``after / before - 1``) with ``change_low_ratio
        change_high_ratio``, ``requests_before requests_after``, ``p_value q_value verdict evidence``. Same
        is here: from 1/1.05 to 1.05 times, or 0.05 ms; of error ratios 0.001, or 5 % of the lesser.
    structure : pandas.DataFrame
        Operations and edges only one side has, see `perflab.analysis.structure.changed_structure`.
    answer : str
        "worse" if anything is, else "better" if anything is, else "same" if everything is, else
        "cannot say".
    sentence : str
        The answer in plain English.
    counts : mapping of str to mapping
        ``before`` and ``after``: as ``CriticalPath.counts``.
    refused : tuple of str
        What was left out on either side or not compared, and why.
    """

    table: pd.DataFrame
    latency: pd.DataFrame
    structure: pd.DataFrame
    answer: str
    sentence: str
    counts: Mapping[str, Mapping[str, int]]
    refused: tuple[str, ...]
    before: Side = field(repr=False)
    after: Side = field(repr=False)

    def measure(self, metric: str, entry: str = ALL, entity: str = "") -> Pair:
        """Measure both sides by one number.

        Parameters
        ----------
        metric : str
            "p50", "p90", "p95", "p99", "p999", "mean" or "errors" of requests; "exclusive" (ms per
            request) or "share" (of the summed duration) of an entity.
        entry : str
            An entry operation, or "all".
        entity : str
            For "exclusive" and "share".

        Returns
        -------
        Pair
            Both values with what chance could have made of them.

        Raises
        ------
        AnalysisError
            If there is no such metric, entry operation or entity on either side.
        """
        sides = (self.before, self.after)
        if metric not in (*METRICS, *OF_ENTITIES):
            known = ", ".join((*METRICS, *OF_ENTITIES))
            raise AnalysisError(f"there is no metric {metric!r}; there are {known}")
        if entry != ALL and entry not in self.entries:
            raise AnalysisError(
                f"there are no requests of {entry!r}; there are {_some([ALL, *self.entries])}"
            )
        if metric in METRICS:
            return measure_requests(*sides, entry, (metric,))[metric]
        if entity not in self.entities:
            raise AnalysisError(f"{entity!r} is on no critical path; there are {_some(self.entities)}")
        return measure_entity(*sides, entry, entity)[metric]

    @property
    def entries(self) -> list[str]:
        """The entry operations of either side."""
        paths = (self.before.path, self.after.path)
        of_paths = {str(name) for path in paths for name in path.entries["entry"].unique()}
        return sorted(of_paths | self.before.entries | self.after.entries)

    @property
    def entities(self) -> list[str]:
        """The entities on critical paths of either side, those with most time first."""
        paths = (self.before.path, self.after.path)
        total = pd.concat([path.table.set_index("entity")["exclusive_ns"] for path in paths])
        summed = total.groupby(level=0).sum().sort_values(ascending=False, kind="stable")
        return [str(name) for name in summed.index]

    def __repr__(self) -> str:
        return f"Comparison({self.answer}: {self.sentence})"

    def _repr_html_(self) -> str:
        counted = [f"{side}: {show_counts(counts)}" for side, counts in self.counts.items()]
        parts = [html_result(self.sentence, self.table, _SHOWN)]
        parts.append(html_result("Latency and errors", self.latency, _SHOWN_LATENCY))
        if len(self.structure):
            parts.append(html_result("Only on one side", self.structure, _SHOWN_STRUCTURE))
        parts.append(html_result("", pd.DataFrame(), (), [*self.refused, *counted]))
        return "".join(parts)


def compare(before: pd.DataFrame, after: pd.DataFrame) -> Comparison:
    """Compare two sets of traces.

    Parameters
    ----------
    before, after : pandas.DataFrame
        Span tables. Of each the marked traces are compared, if both hold some; if only one does, its real
        ones, and if it has none of these, the two as they are (``refused`` says so).

    Returns
    -------
    Comparison
        Intervals are by circular block bootstrap over time, seeded: the same tables give the same numbers,
        and the other way round their mirror image.

    Raises
    ------
    SchemaError
        If one of them is no span table.

    Examples
    --------
    >>> from perflab.testing import S, spans
    >>> def request(at, took):
    ...     query = S("stock", "SELECT stock", at + 2, at + 2 + took + at % 7 / 10, kind="client")
    ...     return S("stock", "GET /stock", at, at + 4 + took + at % 7 / 10, kind="server", children=[query])
    >>> found = compare(spans([request(20 * place, 7) for place in range(80)]),
    ...                 spans([request(20 * place, 9) for place in range(80)]))
    >>> found.table[["entity", "delta_ms", "verdict"]].round(3).values.tolist()
    [['stock: SELECT stock', 2.0, 'worse'], ['stock: GET /stock', 0.0, 'same']]
    """
    for side in (before, after):
        check_spans(side)
    before, after, notes = match_traffic(before, after)
    sides = {"before": Side.of(before), "after": Side.of(after)}
    old, new = sides.values()
    table, not_compared = compare_paths(old.path, new.path, MIN_REQUESTS, with_few=True)
    pairs = measure_latency(old, new)
    p_values = np.array([pair.p_value() for pair in pairs.values()], dtype=np.float64)
    q_values = _adjusted(np.concatenate([table["p_value"], p_values]))
    structure = changed_structure(old.path, new.path)
    table = _judge(table, q_values[: len(table)], set(structure["entity"]))
    latency = latency_changes(pairs, p_values, q_values[len(table) :])
    if old.is_generated != new.is_generated:
        generated, other = ("before", "after") if old.is_generated else ("after", "before")
        notes.append(
            f"latency {generated} is of generated requests, {other} of roots of traces: not the same thing"
        )
    left_out = [f"{name}: {why}" for name, side in sides.items() for why in side.path.refused]
    answer = _answer([*table["verdict"], *latency["verdict"]])
    return Comparison(
        table=table,
        latency=latency,
        structure=structure,
        answer=answer,
        sentence=_sentence(table, latency),
        counts=MappingProxyType({name: side.path.counts for name, side in sides.items()}),
        refused=(*notes, *left_out, *not_compared),
        before=old,
        after=new,
    )


def _adjusted(p_values: Floats) -> Floats:
    adjusted = np.full(len(p_values), math.nan)
    is_told = ~np.isnan(p_values)
    adjusted[is_told] = false_discovery(p_values[is_told])
    return adjusted


def _judge(table: pd.DataFrame, q_values: Floats, on_one_side: set[str]) -> pd.DataFrame:
    """Return the differences with what may be said of each, sorted."""
    rows = table.drop(columns=["differs"]).to_dict("records")
    for row, q_value in zip(rows, q_values.tolist(), strict=True):
        change = Interval(row["delta_ms"], row["low_ms"], row["high_ms"])
        evidence = row.pop("evidence")
        row["q_value"] = q_value
        row["verdict"] = verdict_of(change, row["margin_ms"], q_value)
        has_moved = row["verdict"] in (WORSE, BETTER) and _may_have_moved(row, on_one_side)
        row["verdict"] = CANNOT_SAY if has_moved else row["verdict"]
        row["evidence"] = _explain(row, evidence, has_moved=has_moved)
    # of equal differences the first by name; NaN, where one side has no requests, comes last
    rows.sort(
        key=lambda row: (
            _ORDER.index(row["verdict"]),
            math.isnan(row["delta_ms"]),
            -abs(row["delta_ms"]) if row["delta_ms"] == row["delta_ms"] else 0.0,
            row["entry"],
            row["entity"],
        )
    )
    columns = [*table.columns.drop(["differs", "evidence"]), "verdict", "evidence"]
    kinds = dict.fromkeys(("entry", "entity", "structure", "verdict", "evidence"), "str")
    kinds |= {name: "float64" for name in columns if name not in kinds}
    return pd.DataFrame(rows, columns=columns).astype(kinds)


def _may_have_moved(row: Mapping[str, Any], on_one_side: set[str]) -> bool:
    """Tell whether a difference may be the critical path's alone, which went to another call beside it.

    So it is where both sides have the entity, most of the difference is calls that are on the path now and
    were not (or the other way round), and the requests as a whole are not surely longer, or shorter.
    """
    by_calls = row["more_calls_ms"] + row["structure_ms"]
    if row["entity"] in on_one_side or abs(by_calls) < abs(row["delta_ms"]) / 2:
        return False
    is_slower = row["delta_ms"] > 0
    return bool(not (row["request_low_ms"] > 0 if is_slower else row["request_high_ms"] < 0))


def _explain(row: Mapping[str, Any], change: str, *, has_moved: bool) -> str:
    if math.isnan(row["low_ms"]):
        return f"too few requests of {row['entry']}"
    if has_moved:
        longer = "longer" if row["delta_ms"] > 0 else "shorter"
        return f"{change}; but requests as a whole are not surely {longer}: the critical path may have moved"
    margin = f"{row['margin_ms']:.2g} ms"
    if row["verdict"] == SAME:
        return f"{change}; within {margin}, which makes no difference in practice"
    if row["verdict"] == CANNOT_SAY:
        return f"{change}; neither surely within {margin} nor surely a change beyond that"
    return change


def _answer(verdicts: Sequence[str]) -> str:
    for verdict in (WORSE, BETTER):
        if verdict in verdicts:
            return verdict
    return SAME if verdicts and set(verdicts) == {SAME} else CANNOT_SAY


def _sentence(table: pd.DataFrame, latency: pd.DataFrame) -> str:
    if not len(latency):
        return "Nothing to compare: there are no requests on either side."
    verdicts = table["verdict"].tolist()
    changed = verdicts.count(WORSE) + verdicts.count(BETTER)  # these come first
    told = [
        f"{row['entity']} in {row['entry']} is {row['verdict']} by {abs(row['delta_ms']):.3g} ms per request"
        for row in table.head(min(changed, _CHANGES_TOLD)).to_dict("records")
    ]
    if changed > len(told):
        told.append(f"{changed - len(told)} more changed")
    if not told:
        told.append(
            f"No entity is better or worse: {verdicts.count(SAME)} are the same, "
            f"of {verdicts.count(CANNOT_SAY)} it cannot be said"
        )
    overall = zip(latency["entry"], latency["quantity"], latency["verdict"], strict=True)
    quantities = [f"{name} {_show_verdict(verdict)}" for entry, name, verdict in overall if entry == ALL]
    return f"{'; '.join(told)}. Of all requests: {', '.join(quantities)}."


def _show_verdict(verdict: str) -> str:
    return {SAME: "the same", CANNOT_SAY: "cannot be told"}.get(verdict, verdict)


def _some(names: Sequence[str]) -> str:
    told = ", ".join(repr(name) for name in names[:_NAMES_TOLD])
    more = len(names) - _NAMES_TOLD
    return (told or "none") + (f" and {more} more" if more > 0 else "")
