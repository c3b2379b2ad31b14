"""Loops of calls: time of an operation that lies between calls it makes over and over.

What a call costs its caller does not end with the call: a connection is fetched from the pool, an answer is
decoded, objects are made of it. Where an operation calls the same few places many times in a row, that time
is the operation's own, and yet it goes with the calls: one call in place of all of them saves both. It is
taken to be the calls' cost only as far as it is of their order: what works for long on every item is no N+1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from perflab.analysis.pathtable import Walked
from perflab.analysis.walk import ON_PATH
from perflab.units import NS_PER_MS

Int64s = npt.NDArray[np.int64]

MANY_CALLS = 5
"""Calls of one kind in a row under one parent, on average, that make N+1 of it."""

MIN_BETWEEN = 0.5
"""Part of an operation's own time that must lie between such calls for them to be named in its place."""

MOST_BETWEEN = 2.0
"""How many times the calls' own time may lie between them."""


@dataclass(frozen=True)
class Loop:
    """Calls an operation makes over and over.

    Attributes
    ----------
    entity : str
        What is called: of several the one with most time.
    between_ms : float
        The operation's own time between such calls, per request.
    between_ratio : float
        The same as a part of the operation's own time.
    """

    entity: str
    between_ms: float
    between_ratio: float


def calls_per_parent(walked: Walked) -> npt.NDArray[np.float64]:
    """Return per entity how many of its calls follow each other under one parent, on average."""
    rows = walked.rows(ON_PATH)
    code, parent = walked.entities.code[rows], walked.forest.parent_row[rows]
    size = walked.entities.size
    parent = np.where(parent < 0, rows, parent)  # roots follow nobody
    pairs = np.unique(parent * max(1, size) + code)
    parents = np.bincount(pairs % max(1, size), minlength=size)
    return np.bincount(code, minlength=size) / np.maximum(parents, 1)


def find_loop(walked: Walked, entity: str) -> Loop | None:
    """Return the calls that most of an operation's own time lies between, if there are such.

    Parameters
    ----------
    walked : Walked
        The walked span table.
    entity : str
        The operation.
    """
    names = walked.entities.names
    operation = names.index(entity)
    rows, code = walked.rows(ON_PATH), walked.entities.code
    parent = walked.forest.parent_row[rows]
    inside = rows[(parent >= 0) & (code[parent] == operation)]
    is_repeated = calls_per_parent(walked) >= MANY_CALLS
    begin, finish = walked.walk.begin_ns, walked.walk.finish_ns
    parent = walked.forest.parent_row[inside]
    in_time = np.lexsort((begin[inside], parent))
    earlier, later = inside[in_time][:-1], inside[in_time][1:]
    is_loop = (
        (parent[in_time][:-1] == parent[in_time][1:]) & is_repeated[code[earlier]] & is_repeated[code[later]]
    )
    between_ns = int((begin[later] - finish[earlier])[is_loop].sum())

    exclusive = walked.walk.exclusive_ns
    own_ns = int(exclusive[rows[code[rows] == operation]].sum())
    repeated = inside[is_repeated[code[inside]]]
    called = np.zeros(len(names), dtype=np.int64)
    np.add.at(called, code[repeated], exclusive[repeated])
    called_ns = int(called.sum())
    if not own_ns or between_ns < MIN_BETWEEN * own_ns or between_ns > MOST_BETWEEN * called_ns:
        return None
    per_request = between_ns / NS_PER_MS / max(1, len(walked.roots))
    return Loop(names[int(np.argmax(called))], per_request, between_ns / own_ns)
