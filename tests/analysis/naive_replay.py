"""A second, naive replay: recursive, in absolute times, every sibling compared with every other."""

from __future__ import annotations

from collections import defaultdict

import pandas as pd
from naive_walk import _entity, _is_call, _put_on_one_clock, _read


class Replay:
    """The requests of a table, to be played again.

    ``extra`` delays the end of one span, given by (trace id, span id, kind), by so many ns.
    """

    def __init__(self, table: pd.DataFrame) -> None:
        self.spans, self.roots, self.children = _read(table)
        _put_on_one_clock(self.spans, self.roots, self.children)

    def durations(self, factors: dict[str, float], extra: dict | None = None) -> dict[tuple[str, int], int]:
        """Return ns by trace id and root."""
        self.factors, self.extra = factors, extra or {}
        return {
            (root["trace_id"], root["span_id"]): self.play(root, root["start"], root["end"], 0)
            for root in self.roots
        }

    def played(self) -> set[tuple[str, int, str]]:
        """Return the keys of all spans that a request could have waited for."""
        found: set[tuple[str, int, str]] = set()

        def visit(span: dict, begin: int, end: int) -> None:
            found.add(span["key"])
            for first, last, child in self.family(span, begin, end):
                visit(child, first, last)

        for root in self.roots:
            visit(root, root["start"], root["end"])
        return found

    def entities(self) -> dict[str, list[tuple[str, int, str]]]:
        """Return the keys of the played spans of each entity."""
        found = defaultdict(list)
        for key in self.played():
            found[_entity(self.spans[key], self.children)].append(key)
        return found

    def family(self, span: dict, begin: int, end: int) -> list[tuple[int, int, dict]]:
        """Return a span's synchronous children, clipped, in the order they began."""
        length = span["end"] - span["start"]
        family = []
        for child in self.children[span["key"]]:
            if not _is_call(child):
                if child["kind"] == "consumer" and span["kind"] == "producer":
                    continue
                overshoot = child["end"] - span["end"]
                if overshoot > 1_000_000 and overshoot > length / 100:
                    continue
            first, last = max(child["start"], begin), min(child["end"], end)
            if last > first or (last == first and child["start"] == child["end"]):
                family.append((first, last, child["span_id"], KINDS.index(child["kind"]), child))
        family.sort(key=lambda entry: entry[:4])
        return [(first, last, child) for first, last, _, _, child in family]

    def play(self, span: dict, begin: int, end: int, now: int) -> int:
        """Return when a span ends that begins at ``now``; it was seen from ``begin`` to ``end``."""
        factor = self.factors.get(_entity(span, self.children), 1.0)
        family = self.family(span, begin, end)
        length = span["end"] - span["start"]
        seen_over = [self.seen_over(place, family, length) for place in range(len(family))]
        starts, ends = [], []
        for place, (first, last, child) in enumerate(family):
            waited_for = [
                other
                for other in range(place)
                if seen_over[other][1] is not None and seen_over[other][1] <= place
            ]
            point = max(
                [begin, *[family[place - 1][0]] * (place > 0), *(seen_over[o][0] for o in waited_for)]
            )
            moment = max(
                [now, *starts[-1:], *(ends[o] - (family[o][1] - seen_over[o][0]) for o in waited_for)]
            )
            starts.append(moment + self.times(first - point, factor))
            ends.append(self.play(child, first, last, starts[-1]))
        seen_joined = max([begin, *(first for first, *_ in family), *(last for _, last, _ in family)])
        joined = max([now, *starts, *ends])
        return joined + self.times(end - seen_joined, factor) + self.extra.get(span["key"], 0)

    @staticmethod
    def seen_over(place: int, family: list, length: int) -> tuple[int, int | None]:
        """Return when a child counts as over, and the first sibling that begins after that."""
        begin, end, _ = family[place]
        for other in range(place + 1, len(family)):
            first, last, _ = family[other]
            overlap = end - first
            if first >= end:
                return end, other
            if first > begin and last >= end and (overlap < 50_000 or overlap < length / 1000):
                return first, other
        return end, None

    @staticmethod
    def times(work: int, factor: float) -> int:
        return work if factor == 1 else round(work * factor)


KINDS = ("internal", "server", "client", "producer", "consumer")
