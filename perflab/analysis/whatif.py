"""What requests would take if something took more or less time: each trace is played again.

A trace shows who waited for whom. `what_if` keeps that order and changes the times: an entity's own work in
each span is multiplied by its factor, all other work stays what it was. A child begins after the same work of
its parent as before and after the siblings that had ended before it began; a parent ends after its children
and the rest of its own work. So whatever runs beside the changed part becomes critical when it is its turn,
which a share of the critical path cannot know.

What ran one after another stays so, though it need not; what is asynchronous stays off; a callee given up by
its caller counts as long as it was waited for. Queues stay as they were: see ``WhatIf.bias``. What calls wait
for the workers of a traced service is in the edge to it, so that of a faster operation in a busy service the
greater part of the gain may be missing from ``gain_ms``. ``modelled_gain_ms`` has the queues that were seen
played again, too (`perflab.analysis.whatif_queue`): rank by that.

Slack and drag are those of the critical path method: the total float of J. E. Kelley and M. R. Walker, 1959,
and the drag of S. Devaux.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from perflab.analysis.bootstrap import Resampling, interval
from perflab.analysis.criticalpath import CriticalPath, critical_path
from perflab.analysis.markup import html_result, show_counts
from perflab.analysis.quantile import nearest_rank, rank_bounds
from perflab.analysis.utilisation import MIN_CALLS, utilisations
from perflab.analysis.whatif_layout import Layout
from perflab.analysis.whatif_queue import Played, play_queues
from perflab.errors import AnalysisError
from perflab.units import NS_PER_MS

Int64s = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

ALL = "all"
FEW_BUSY = 0.15
"""Utilisation up to which queues hardly matter to the replay."""

MIN_REQUESTS = 20
"""Requests below which no interval is given."""

MAX_FACTOR = 1000.0
_QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
_GAINS = ("gain_ms", "low_ms", "high_ms", "modelled_gain_ms", "at_least_ms")
_SHOWN = ("entry", "requests", "before_p50_ms", "after_p50_ms", "before_p95_ms", "after_p95_ms",
          "before_p99_ms", "after_p99_ms", *_GAINS)  # fmt: skip


@dataclass(frozen=True, eq=False)
class WhatIf:
    """Requests as they were and as they would be.

    Attributes
    ----------
    table : pandas.DataFrame
        Over all requests (``entry`` "all"), then per entry operation, most time first: ``entry``,
        ``requests``, ``before_p50_ms before_p95_ms before_p99_ms before_mean_ms`` and the same of
        ``after_``, ``after_p50_low_ms after_p50_high_ms`` and so on (95 % interval by order statistics; NaN
        where there are too few requests), ``gain_ms`` (what an average request saves; below 0 if it takes
        longer), ``low_ms high_ms`` (its 95 % interval by block bootstrap over time; NaN below 20 requests),
        ``modelled_gain_ms`` (what it saves with the queues that were seen played again; ``gain_ms`` where
        none was), ``at_least_ms`` (the gain if what calls wait for workers of the changed entities stays as
        it is, or moves on to the next queue, or ``modelled_gain_ms`` if that is less; for a slow-down the
        loss, if queues do not grow).
    requests : pandas.DataFrame
        One row per request in order of time: ``trace_id entry start_ns before_ns after_ns``.
    factors : mapping of str to float
        As given.
    bias : str
        In which direction, and about how far, the replay is off, given how busy the changed entities are.
    is_bound : bool
        Whether something changed is too busy, or may be, for more than a bound: its queue would change, too.
        ``at_least_ms`` is the bound.
    utilisation : pandas.DataFrame
        How busy the changed entities are, see `perflab.analysis.utilisation.utilisations`.
    counts : mapping of str to int
        As ``CriticalPath.counts``.
    refused : tuple of str
        What was left out, as sentences.
    """

    table: pd.DataFrame
    requests: pd.DataFrame
    factors: Mapping[str, float]
    bias: str
    is_bound: bool
    utilisation: pd.DataFrame
    counts: Mapping[str, int]
    refused: tuple[str, ...]
    path: CriticalPath = field(repr=False)
    layout: Layout = field(repr=False)

    @cached_property
    def limits(self) -> pd.DataFrame:
        """What is in each entity at most, shorter queues aside: one row each, greatest gain first.

        Columns: ``entity``; ``requests`` it works in; ``own_ms`` (its own work in an average request, on the
        critical path or beside it); ``gain_ms`` (what an average request would save if it took no time at
        all) with ``low_ms high_ms``; ``drag_ratio`` (``gain_ms / own_ms``: the part of its work that delays
        requests once other branches have become critical); ``slack_ms`` (how much longer any one call may
        take before any request takes longer) and ``slack_p50_ms`` (the same of the middle call).
        """
        return _limits(self.path, self.layout)

    def __repr__(self) -> str:
        if not len(self.requests):
            return "WhatIf(no requests)"
        every = self.table.iloc[0]
        changed = (
            ", ".join(f"{name!r} times {factor:g}" for name, factor in self.factors.items()) or "nothing"
        )
        return (
            f"WhatIf({changed}: mean of {len(self.requests)} requests {every['before_mean_ms']:.4g} -> "
            f"{every['after_mean_ms']:.4g} ms)"
        )

    def _repr_html_(self) -> str:
        title = f"{repr(self)[7:-1]}"
        return html_result(title, self.table, _SHOWN, [self.bias, *self.refused, show_counts(self.counts)])


def what_if(spans: pd.DataFrame, factors: Mapping[str, float]) -> WhatIf:
    """Play requests again with some entities faster or slower.

    Parameters
    ----------
    spans : pandas.DataFrame
        A span table. Where it holds marked and real traces, only the marked ones are played.
    factors : mapping of str to float
        Entity (``service: operation`` or ``caller -> callee``) -> what its own work is multiplied by: 0 takes
        it away, 1 changes nothing, 2 doubles it; at most 1,000. Of an edge it is the gap.

    Returns
    -------
    WhatIf
        With no factors each request takes what it took, to the nanosecond. The time of a request is that of
        its root's span; how long it was late before it was sent is in the latency.

    Raises
    ------
    AnalysisError
        If an entity is not in the table, or a factor is no number from 0 to 1,000.
    SchemaError
        If ``spans`` is no span table.

    Examples
    --------
    >>> from perflab.testing import S, spans
    >>> fast, slow = S("order", "GET price", 10, 50), S("order", "GET stock", 10, 90)
    >>> table = spans([S("order", "POST /orders", 0, 100, kind="server", children=[fast, slow])])
    >>> what_if(table, {"order: GET stock": 0}).requests[["before_ns", "after_ns"]].values.tolist()
    [[100000000, 60000000]]
    """
    path = critical_path(spans)
    factor = _read_factors(factors, path.walked.entities.names)
    layout = Layout.of(path.walked)
    changed = {str(name): float(value) for name, value in factors.items()}
    utilisation = utilisations(path.walked, [name for name, value in changed.items() if value != 1])
    played = play_queues(path.walked, layout, factor)
    bias, is_bound = _bias(changed, utilisation)
    bias += _told_queues(played)
    requests = path.entries[["trace_id", "entry", "start_ns"]].assign(
        before_ns=layout.before_ns,
        after_ns=layout.replay(factor),
        modelled_ns=played.after_ns,
        at_most_ns=layout.replay(_of_service_alone(factor, utilisation, path, layout)),
    )
    return WhatIf(
        table=_summaries(requests, is_faster=bool((factor <= 1).all())),
        requests=requests.drop(columns=["modelled_ns", "at_most_ns"]),
        factors=MappingProxyType(changed),
        bias=bias,
        is_bound=is_bound,
        utilisation=utilisation,
        counts=path.counts,
        refused=path.refused,
        path=path,
        layout=layout,
    )


def _read_factors(factors: Mapping[str, float], names: list[str]) -> Floats:
    place = {name: number for number, name in enumerate(names)}
    factor = np.ones(len(names))
    for name, value in factors.items():
        if name not in place:
            near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.4)
            known = f"the nearest are {', '.join(map(repr, near))}" if near else "none is like it"
            raise AnalysisError(
                f"there is no entity {name!r} among the {len(names)} of this table; {known}. Entities are "
                "written 'service: operation' or 'caller -> callee'; critical_path(spans).table has them"
            )
        is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
        if not is_number or not 0 <= float(value) <= MAX_FACTOR:
            raise AnalysisError(
                f"the factor of {name!r} is {value!r}, should be a number from 0 (takes no time) over 1 (as "
                f"it is) to {MAX_FACTOR:,.0f}"
            )
        factor[place[name]] = float(value)
    return factor


def _of_service_alone(
    factor: Floats, utilisation: pd.DataFrame, path: CriticalPath, layout: Layout
) -> Floats:
    """Return the factors that leave the time calls wait for a worker as it is, and change only the rest."""
    names = path.walked.entities.names
    _, code, calls, own = layout.own_work(len(names))
    of_service = factor.copy()
    for name, wait_ms in zip(utilisation["entity"], utilisation["wait_ms"], strict=True):
        place = names.index(name)
        is_its = code == place
        own_ms = own[is_its].sum() / max(1, calls[is_its].sum()) / NS_PER_MS
        share = max(0.0, 1 - wait_ms / own_ms) if own_ms > 0 else 1.0
        of_service[place] = 1 + (factor[place] - 1) * share
    return of_service


def _summaries(requests: pd.DataFrame, *, is_faster: bool) -> pd.DataFrame:
    time_of = requests.groupby("entry", observed=True)["before_ns"].sum()
    heaviest_first = sorted(time_of.items(), key=lambda item: (-int(item[1]), str(item[0])))
    entry = requests["entry"].array
    groups = [(ALL, requests)] if len(requests) else []
    groups += [(str(name), requests[np.asarray(entry == name)]) for name, _ in heaviest_first]
    columns = ["entry", "requests"]
    columns += [f"{when}_{name}_ms" for when in ("before", "after") for name in (*_QUANTILES, "mean")]
    columns += [f"after_{name}_{side}_ms" for name in _QUANTILES for side in ("low", "high")]
    return pd.DataFrame(
        [_summary(name, group, is_faster) for name, group in groups], columns=[*columns, *_GAINS]
    )


def _summary(name: str, requests: pd.DataFrame, is_faster: bool) -> dict[str, Any]:
    size = len(requests)
    found: dict[str, Any] = {"entry": name, "requests": size}
    for when in ("before", "after"):
        ascending = np.sort(requests[f"{when}_ns"].to_numpy()) / NS_PER_MS
        found[f"{when}_mean_ms"] = float(ascending.mean())
        for quantile, ratio in _QUANTILES.items():
            found[f"{when}_{quantile}_ms"] = float(ascending[nearest_rank(size, ratio) - 1])
            low, high = rank_bounds(size, ratio)
            if when == "after":
                found[f"after_{quantile}_low_ms"] = float(ascending[low - 1]) if low >= 1 else math.nan
                found[f"after_{quantile}_high_ms"] = float(ascending[high - 1]) if high <= size else math.nan
    gain_ns = requests["before_ns"].to_numpy() - requests["after_ns"].to_numpy()
    found["gain_ms"] = float(gain_ns.mean()) / NS_PER_MS
    lows, highs = _mean_intervals(
        requests["start_ns"].to_numpy(), np.arange(size), np.zeros_like(gain_ns), gain_ns
    )
    found["low_ms"], found["high_ms"] = float(lows[0]), float(highs[0])
    modelled_ns = requests["before_ns"].to_numpy() - requests["modelled_ns"].to_numpy()
    found["modelled_gain_ms"] = float(modelled_ns.mean()) / NS_PER_MS
    at_least_ns = requests["before_ns"].to_numpy() - requests["at_most_ns"].to_numpy()
    at_least_ms = float(at_least_ns.mean()) / NS_PER_MS
    found["at_least_ms"] = min(at_least_ms, found["modelled_gain_ms"]) if is_faster else at_least_ms
    return found


def _mean_intervals(
    start_ns: Int64s, request: Int64s, code: Int64s, saved_ns: Int64s
) -> tuple[Floats, Floats]:
    """Return the interval of what an average request saves, in ms, per code (0 to the greatest)."""
    codes = int(code.max(initial=-1)) + 1
    if len(start_ns) < MIN_REQUESTS:
        return np.full(codes, math.nan), np.full(codes, math.nan)
    plan = Resampling.of(start_ns)
    per_cell = np.zeros((plan.cells, 1 + codes))
    np.add.at(per_cell[:, 0], plan.cell_of(np.arange(len(start_ns))), 1.0)
    np.add.at(per_cell, (plan.cell_of(request), 1 + code), saved_ns / NS_PER_MS)
    sums = plan.sums(per_cell)
    estimate = per_cell[:, 1:].sum(axis=0) / len(start_ns)
    return interval(sums[:, 1:] / sums[:, :1], estimate, plan.blocks)


def _limits(path: CriticalPath, layout: Layout) -> pd.DataFrame:
    names = path.walked.entities.names
    entities, size = len(names), max(1, len(path.entries))
    request, code, calls, own = layout.own_work(entities)
    saved = layout.before_ns[request] - layout.without(request, code, np.ones(entities))
    used, number = np.unique(code, return_inverse=True)
    low, high = _mean_intervals(path.entries["start_ns"].to_numpy(), request, number, saved)
    own_ms = np.bincount(number, weights=own, minlength=len(used)) / size / NS_PER_MS
    gain_ms = np.bincount(number, weights=saved, minlength=len(used)) / size / NS_PER_MS
    slack = pd.Series(layout.slack() / NS_PER_MS).groupby(layout.code)
    table = pd.DataFrame(
        {
            "entity": pd.array([names[place] for place in used], dtype="str"),
            "requests": np.bincount(number, minlength=len(used)),
            "calls": np.bincount(number, weights=calls, minlength=len(used)).astype(np.int64),
            "own_ms": own_ms,
            "gain_ms": gain_ms,
            "low_ms": np.maximum(low, 0.0),
            "high_ms": high,
            "drag_ratio": np.divide(gain_ms, own_ms, out=np.zeros_like(own_ms), where=own_ms > 0),
            "slack_ms": slack.min().to_numpy(),
            "slack_p50_ms": slack.median().to_numpy(),
        }
    )
    return table.sort_values(["gain_ms", "entity"], ascending=[False, True], ignore_index=True)


def _bias(factors: Mapping[str, float], utilisation: pd.DataFrame) -> tuple[str, bool]:
    """Return the sentence on what the replay leaves out, and whether it makes the result only a bound."""
    text = (
        "The replay leaves queues as they were: of a speed-up it overstates what is left (1.5 times at a "
        "utilisation of 0.5, 3 times at 0.8), of a slow-down it understates what it costs."
    )
    told, is_bound = [], False
    for row in utilisation.to_dict("records"):
        busy = row["utilisation_ratio"]
        if not math.isnan(busy):
            told.append(f"{row['entity']}: utilisation about {busy:.2f} ({row['workers']} at once)")
            is_bound |= busy > FEW_BUSY
        elif row["calls"] >= MIN_CALLS:
            told.append(f"{row['entity']}: no call was seen to wait for others")
        else:
            told.append(
                f"{row['entity']}: utilisation at most {row['busy_ratio']:.2f}, too few calls to tell more"
            )
            is_bound |= row["busy_ratio"] > FEW_BUSY
    if told:
        text += f" Here {'; '.join(told)}."
    if is_bound:
        what = "loss" if min(factors.values()) > 1 else "gain"
        return f"{text} That is too busy for more than a bound: take at_least_ms for the {what}.", True
    return text, False


def _told_queues(played: Played) -> str:
    """Return the sentence on the queues that were played again; none without them."""
    if not played.queues:
        return ""
    unsettled = "" if played.is_settled else f", though not settled after {played.rounds} rounds"
    return (
        f" In modelled_gain_ms the queues for {', '.join(played.queues)} are played again, first come, first "
        f"served, each worker busy as long as a call's span lasts{unsettled}."
    )
