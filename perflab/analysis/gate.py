"""Gates: what a comparison must not show, such as ``p99 > 5%``, and whether it does.

::

    METRIC [@ ENTRY] OP VALUE

    METRIC  p50 p90 p95 p99 p999 mean errors, exclusive:ENTITY (ms per request), share:ENTITY (of the time)
    ENTRY   an entry operation; left out, all requests
    OP      > or >=
    VALUE   5%      the change, relative to before
            +20ms   the change, of errors and shares without a unit: +0.01
            20ms    what is after, whatever was before; of errors and shares without a unit: 0.01

A gate fails only when that is certain: when the whole 95 % interval is above the limit. Strictly judged, it
fails when the estimate is.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from perflab.analysis.compare import Comparison
from perflab.analysis.drawn import ERRORS, METRICS, Interval, Pair
from perflab.analysis.latencychange import show_change, show_level
from perflab.analysis.side import ALL, OF_ENTITIES, SHARE
from perflab.errors import ConfigError
from perflab.units import NS_PER_MS, duration_ns

FAILED, PASSED, NOT_CERTAIN, CANNOT_SAY = "failed", "passed", "not certain", "cannot say"

_GRAMMAR = (
    "METRIC [@ ENTRY] > VALUE, such as 'p99 > 5%', 'errors > 0.01' or 'exclusive:stock: SELECT stock > 20ms'"
)
_PARTS = re.compile(r"(?P<what>.*\S)\s*(?P<operator>>=|>)\s*(?P<value>[^>=\s][^>]*)", re.DOTALL)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)")


@dataclass(frozen=True)
class Gate:
    """A gate as it was read.

    Attributes
    ----------
    text : str
        As it was written.
    metric : str
        "p99", "exclusive" and so on.
    target : str
        Entity and entry operation as written after the metric; which is which only the data tell, for both
        may contain any sign.
    or_equal : bool
        Whether the limit itself fails, too (``>=``).
    limit : float
        A ratio, ms, or a share.
    kind : {'relative', 'change', 'level'}
        What is held against the limit.
    """

    text: str
    metric: str
    target: str
    or_equal: bool
    limit: float
    kind: str


@dataclass(frozen=True)
class Ruling:
    """What became of a gate.

    Attributes
    ----------
    gate : str
        As it was written.
    outcome : {'passed', 'failed', 'not certain', 'cannot say'}
        "not certain": the interval reaches over the limit, or is open; "cannot say": too few requests.
    sentence : str
        What was measured and why that is the outcome.
    """

    gate: str
    outcome: str
    sentence: str


def parse_gate(text: str) -> Gate:
    """Read a gate.

    Parameters
    ----------
    text : str
        As described on top.

    Returns
    -------
    Gate

    Raises
    ------
    ConfigError
        If it is no gate, has no such metric, or its value does not fit the metric.

    Examples
    --------
    >>> gate = parse_gate("exclusive:order -> stock @ perflab: order >= +20ms")
    >>> gate.metric, gate.target, gate.or_equal, gate.limit, gate.kind
    ('exclusive', 'order -> stock @ perflab: order', True, 20.0, 'change')
    """
    parts = _PARTS.fullmatch(text.strip())
    if not parts:
        raise ConfigError(f"{text!r} is not a gate; write {_GRAMMAR}")
    metric, colon, target = parts["what"].partition(":")
    if metric.strip() not in OF_ENTITIES:
        metric, colon, target = parts["what"].partition("@")
    metric, target = metric.strip(), target.strip()
    if metric not in (*METRICS, *OF_ENTITIES):
        known = ", ".join((*METRICS, *(f"{name}:ENTITY" for name in OF_ENTITIES)))
        raise ConfigError(f"gate {text!r}: there is no metric {metric!r}; there are {known}")
    if (colon or metric in OF_ENTITIES) and not target:
        what = "an entity, as in exclusive:ENTITY" if metric in OF_ENTITIES else "an entry operation after @"
        raise ConfigError(f"gate {text!r} lacks {what}")
    limit, kind = _read_value(text, metric, parts["value"].strip())
    return Gate(text.strip(), metric, target, parts["operator"] == ">=", limit, kind)


def judge_gate(gate: Gate, comparison: Comparison, *, strict: bool = False) -> Ruling:
    """Decide whether a gate fails.

    Parameters
    ----------
    gate : Gate
        What must not be.
    comparison : Comparison
        What is.
    strict : bool
        Whether the estimate decides, however wide its interval.

    Returns
    -------
    Ruling

    Raises
    ------
    AnalysisError
        If neither side has the entity or the entry operation.
    """
    entity, entry = _resolve(gate, comparison)
    pair = comparison.measure(gate.metric, entry, entity)
    found, limit, shown = _measure(gate, pair)
    limit_shown = _show_limit(gate, pair)
    above = "at or above" if gate.or_equal else "above"

    def is_over(value: float) -> bool:
        return value >= limit if gate.or_equal else value > limit

    if math.isnan(found.estimate):
        outcome, why = CANNOT_SAY, pair.why_not(gate.metric) or "nothing was measured"
    elif strict:
        outcome = FAILED if is_over(found.estimate) else PASSED
        why = f"the estimate is {'' if outcome == FAILED else 'not '}{above} {limit_shown} (strict)"
    elif is_over(found.low):
        outcome, why = FAILED, f"the whole interval is {above} {limit_shown}"
    elif not math.isnan(found.high) and not is_over(found.high):
        outcome, why = PASSED, f"no part of the interval is {above} {limit_shown}"
    elif math.isnan(found.low) and math.isnan(found.high):
        outcome, why = CANNOT_SAY, pair.why_not(gate.metric) or "the data do not bound it"
    else:
        outcome, why = NOT_CERTAIN, f"that it is {above} {limit_shown} is not certain"
        if reason := pair.why_not(gate.metric):
            why = f"{why}: {reason}"
    return Ruling(gate.text, outcome, f"{shown} of {'all requests' if entry == ALL else entry}; {why}")


def _read_value(text: str, metric: str, value: str) -> tuple[float, str]:
    """Return a gate's limit and what is held against it."""
    is_ratio = metric in (ERRORS, SHARE)
    one = "0.01" if is_ratio else "20ms"
    fits = f"'5%' for a change relative to before, '+{one}' for a change, or '{one}' for what is after"
    kind = "change" if value[:1] in ("+", "-") else "level"
    if value.endswith("%"):
        kind, number = "relative", value[:-1].strip()
        if _NUMBER.fullmatch(number):
            return float(number) / 100, kind
    elif is_ratio:
        if _NUMBER.fullmatch(value):
            return float(value), kind
    else:
        try:
            size = duration_ns(value.lstrip("+-")) / NS_PER_MS
        except ConfigError:
            size = math.nan
        if not math.isnan(size):
            return (-size if value[0] == "-" else size), kind
    raise ConfigError(f"gate {text!r}: {value!r} is no value for {metric}; write {fits}")


def _resolve(gate: Gate, comparison: Comparison) -> tuple[str, str]:
    """Return the entity ("" of a metric of requests) and the entry operation that are meant."""
    if gate.metric in METRICS:
        return "", gate.target or ALL
    known = set(comparison.entities)
    if gate.target in known:
        return gate.target, ALL
    pieces = gate.target.split("@")
    for cut in range(len(pieces) - 1, 0, -1):
        entity, entry = "@".join(pieces[:cut]).strip(), "@".join(pieces[cut:]).strip()
        if entity in known:
            return entity, entry
    return pieces[0].strip(), "@".join(pieces[1:]).strip() or ALL


def _measure(gate: Gate, pair: Pair) -> tuple[Interval, float, str]:
    """Return what is held against which limit, and how to say it."""
    if gate.kind == "level":
        found = pair.level()
        ends = f" ({show_level(pair, found.low)} to {show_level(pair, found.high)})"
        ends = "" if math.isnan(found.low) and math.isnan(found.high) else ends
        return found, gate.limit, f"{gate.metric} {show_level(pair, found.estimate)}{ends} after"
    if gate.kind == "change":
        found = pair.difference()
        return found, gate.limit, f"{gate.metric} {show_change(pair, found, as_ratio=False)}"
    change = pair.change()
    if not math.isnan(change.estimate):
        return change, gate.limit, f"{gate.metric} {show_change(pair, change)}"
    # nothing before: any change is infinitely large relative to that
    found = pair.difference(1 + gate.limit)
    return found, 0.0, f"{gate.metric} {show_change(pair, pair.difference(), as_ratio=False)}"


def _show_limit(gate: Gate, pair: Pair) -> str:
    if gate.kind == "relative":
        return f"{100 * gate.limit:+.3g} %"
    sign = "+" if gate.kind == "change" and gate.limit >= 0 else ""
    return f"{sign}{show_level(pair, gate.limit)}"
