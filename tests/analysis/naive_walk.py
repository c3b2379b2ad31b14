"""The strict critical-path rule again, slow and simple: dictionaries and recursion, a span at a time.

Written from the words of DESIGN.md, section 4, without looking at the fast one: it is its oracle.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pandas as pd

Key = tuple[str, int, str]


def naive_exclusive(table: pd.DataFrame) -> dict[tuple[str, str], int]:
    """Return exclusive ns by (trace id, entity) over all requests that have a root."""
    spans, roots, children = _read(table)
    _put_on_one_clock(spans, roots, children)
    found: dict[tuple[str, str], int] = defaultdict(int)
    for root in roots:
        _charge(root, root["start"], root["end"], spans, children, found)
    return dict(found)


def _read(table: pd.DataFrame) -> tuple[dict[Key, dict[str, Any]], list[dict[str, Any]], dict[Key, list]]:
    spans: dict[Key, dict[str, Any]] = {}
    for row in table.to_dict("records"):
        key = (row["trace_id"], row["span_id"], row["kind"])
        if key not in spans:
            spans[key] = {
                **row,
                "key": key,
                "start": row["start_ns"],
                "end": row["start_ns"] + max(0, row["duration_ns"]),
            }
    by_id = {(trace, span): key for trace, span, _ in spans for key in [(trace, span, _)]}
    roots, children = [], defaultdict(list)
    for span in spans.values():
        if span["parent_span_id"] == 0:
            roots.append(span)
        elif (parent := by_id.get((span["trace_id"], span["parent_span_id"]))) is not None:
            span["parent"] = spans[parent]
            children[parent].append(span)
    return spans, roots, children


def _put_on_one_clock(spans: dict, roots: list, children: dict) -> None:
    calls = defaultdict(list)
    for span in spans.values():
        if _is_call(span) and span["host"] != span["parent"]["host"]:
            parent = span["parent"]
            calls[parent["host"], span["host"]].append(
                (span["end"] - parent["end"], span["start"] - parent["start"])
            )
    offsets = {pair: _offset(bounds) for pair, bounds in calls.items()}

    def move(span: dict, by: int) -> None:
        span["start"] += by
        span["end"] += by
        for child in children[span["key"]]:
            step = by
            if _is_call(child) and child["host"] != span["host"]:
                step -= offsets[span["host"], child["host"]]
                start, length = child["start"] + step, child["end"] - child["start"]
                room = span["end"] - span["start"] - length
                if room >= 0 and not span["start"] <= start <= span["start"] + room:
                    step += span["start"] + room // 2 - start
            move(child, step)

    for root in roots:
        move(root, 0)


def _offset(bounds: list[tuple[int, int]]) -> int:
    """Try every point where the number of overlapping intervals can change."""
    real = [(low, high) for low, high in bounds if low <= high]
    if not real:
        return min(high for _, high in bounds)
    areas = []
    for low, _ in real:
        over = [(a, b) for a, b in real if a <= low <= b]
        # the overlap that begins here ends with the first that closes, or where another opens
        end = min([b for _, b in over] + [a for a, b in real if a > low])
        areas.append((-len(over), end - low, low, end))
    best = min(area[0] for area in areas)
    _, _, low, end = min(area for area in areas if area[0] == best)
    return (low + end) // 2


def _is_call(span: dict) -> bool:
    return "parent" in span and span["kind"] == "server" and span["parent"]["kind"] == "client"


def _entity(span: dict, children: dict) -> str:
    if span["kind"] == "client":
        callees = [
            child
            for child in children[span["key"]]
            if child["service"] != span["service"] and child["kind"] != "consumer"
        ]
        if callees:
            callee = min(callees, key=lambda child: (child["kind"] != "server", child["span_id"]))
            return f"{span['service']} -> {callee['service']}"
    return f"{span['service']}: {span['name']}"


def _charge(span: dict, begin: int, end: int, spans: dict, children: dict, found: dict) -> None:
    length = span["end"] - span["start"]
    family = []
    for child in children[span["key"]]:
        if not _is_call(child):
            if child["kind"] == "consumer" and span["kind"] == "producer":
                continue
            overshoot = child["end"] - span["end"]
            if overshoot > 1_000_000 and overshoot > length / 100:
                continue
        first, last = max(child["start"], begin), min(child["end"], end)
        if last > first or (last == first and child["start"] == child["end"]):
            family.append((last, last - first, -child["span_id"], child, first))
    cursor, own = end, end - begin
    while family:
        # the last to end; of these the longest; of these the smallest id
        latest = max(family, key=lambda entry: entry[:3])
        family.remove(latest)
        last, _, _, child, first = latest
        if last > cursor:
            overlap = last - cursor
            if not (overlap < 50_000 or overlap < length / 1000) or first >= cursor:
                continue
            last = cursor
        own -= last - first
        _charge(child, first, last, spans, children, found)
        cursor = first
    found[span["trace_id"], _entity(span, children)] += own
