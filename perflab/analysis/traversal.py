"""From a span table to walked traces: links, population, names, one clock, the walk.

All of it is done for whole traces at once, or for some of them at a time when the table does not fit into
memory: `Surroundings` then tells what only the whole table shows.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from perflab.analysis.entity import find_entities
from perflab.analysis.pathtable import Walked
from perflab.analysis.population import Population, find_linked, take_population
from perflab.analysis.walk import Tree, walk_back
from perflab.trace.skew import align
from perflab.trace.tree import Forest, link


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What is known of the whole span table, of which a part is looked at.

    Attributes
    ----------
    has_marked : bool
        Whether any of its traces is marked test traffic: then only those are taken.
    clocks : pandas.DataFrame
        How far its hosts' clocks are apart, as `perflab.trace.skew.clock_offsets` returns it.
    traces : container of str
        The ids of its traces.
    """

    has_marked: bool
    clocks: pd.DataFrame
    traces: Container[str]


@dataclass(frozen=True, eq=False)
class Traversal:
    """Walked traces, and what was done to get there.

    Attributes
    ----------
    walked : Walked
    population : Population
    adjusted : dict of str to int
        Spans ``shifted`` and ``centred``, and ``negative_durations``.
    """

    walked: Walked
    population: Population
    adjusted: dict[str, int]

    def counts(self) -> dict[str, int]:
        """Return how many of what there were; those of parts of a table add up."""
        walked, population = self.walked, self.population
        forest, walk = walked.forest, walked.walk
        has_request = np.zeros(forest.traces, dtype=bool)
        has_request[forest.trace_code[walked.roots]] = True
        return {
            "traces": int(has_request.sum()),
            "requests": len(walked.roots),
            "spans": int(population.is_taken.sum()),
            "roots": forest.roots,
            "orphans": forest.orphans,
            "duplicates": forest.duplicates,
            "cycles": forest.cycles,
            "unanswered": population.unanswered,
            "real_traces_left_out": population.real_traces_left_out,
            "clipped": int(walk.is_clipped.sum()),
            "abandoned": int(walk.is_abandoned.sum()),
            "asynchronous": int(walk.is_asynchronous.sum()),
            **self.adjusted,
        }


def traverse(
    spans: pd.DataFrame, *, crisp: bool = False, surroundings: Surroundings | None = None
) -> Traversal:
    """Walk the traces of a span table.

    Parameters
    ----------
    spans : pandas.DataFrame
        A span table; a part of one holds whole traces.
    crisp : bool
        Walk as CRISP does: no clock is shifted, nothing is asynchronous, there are no edges.
    surroundings : Surroundings, optional
        What is known of the whole table; left out, this is the whole table.

    Raises
    ------
    SchemaError
        If it is no span table.
    """
    forest = link(spans)
    population = take_population(spans, forest, surroundings.has_marked if surroundings else None)
    entities = find_entities(spans, forest, with_edges=not crisp)
    tree, adjusted = _derive(spans, forest, surroundings, is_crisp=crisp)
    is_root = population.is_root & ~tree.is_detached
    walk = walk_back(tree, is_root, population.is_taken, crisp=crisp)
    return Traversal(Walked.of(spans, forest, entities, tree, walk, is_root), population, adjusted)


def refusals(counts: Mapping[str, int]) -> tuple[str, ...]:
    """Say what was left out, and why."""
    refused = []
    if counts["real_traces_left_out"]:
        refused.append(
            f"{counts['real_traces_left_out']:,} unmarked traces left out: marked and real traffic "
            "are never pooled"
        )
    if counts["unanswered"]:
        refused.append(
            f"{counts['unanswered']:,} requests were never answered: there is no end to walk back from; "
            "they are weighed in the latency"
        )
    if counts["orphans"]:
        refused.append(f"{counts['orphans']:,} fragments left out: their parent span never arrived")
    if counts["cycles"]:
        refused.append(f"{counts['cycles']:,} cycles of spans that name each other as parent left out")
    return tuple(refused)


def _derive(
    spans: pd.DataFrame, forest: Forest, surroundings: Surroundings | None, *, is_crisp: bool
) -> tuple[Tree, dict[str, int]]:
    """Return the tree on derived times, and how many spans were adjusted."""
    from perflab.analysis.walking import derive
    from perflab.compiled import in_one_piece

    raw_ns = spans["duration_ns"].to_numpy()
    alignment = None if is_crisp else align(spans, forest, surroundings.clocks if surroundings else None)
    start = spans["start_ns"].to_numpy() if alignment is None else alignment.start_ns
    end, is_call, is_message, negative = derive(
        in_one_piece(forest.parent_row), forest.kind_rank, in_one_piece(start), in_one_piece(raw_ns)
    )
    known = surroundings.traces if surroundings else None
    tree = Tree(
        parent_row=forest.parent_row,
        start_ns=start,
        end_ns=end,
        span_id=spans["span_id"].to_numpy(),
        kind_rank=forest.kind_rank,
        order=forest.order,
        largest=int(np.diff(forest.trace_offsets).max(initial=0)),
        is_call=is_call,
        is_detached=np.zeros_like(is_message) if is_crisp else is_message | find_linked(spans, forest, known),
    )
    return tree, {
        "shifted": alignment.shifted if alignment else 0,
        "centred": alignment.centred if alignment else 0,
        "negative_durations": negative,
    }
