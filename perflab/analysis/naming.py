"""Finds callees and numbers entities in machine code; `perflab.analysis.entity` tells what they mean."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from perflab.compiled import CODES, IDS, INT, INTS, SHORTS, Codes, Int64s, Shorts, entrance, number
from perflab.trace.schema import KINDS

_SERVER, _CLIENT, _CONSUMER = KINDS.index("server"), KINDS.index("client"), KINDS.index("consumer")


@entrance(INTS, SHORTS, CODES, IDS)
def choose_callees(
    parent_row: Int64s, kind: Shorts, service: Codes, span_id: npt.NDArray[np.uint64]
) -> Int64s:
    """Choose the callee of every CLIENT span.

    Parameters
    ----------
    parent_row : int64[n]
        -1 for heads.
    kind : int8[n]
        As in `perflab.trace.tree.Forest`, ``kind_rank``.
    service : int32[n]
    span_id : uint64[n]

    Returns
    -------
    int64[n]
        The row of its child in another service: the SERVER before others, a smaller id before a larger, an
        earlier row before a later; CONSUMERs are none. -1 where there is none.
    """
    callee_row = np.full(len(parent_row), -1, dtype=np.int64)
    for row in range(len(parent_row)):
        parent = parent_row[row]
        if parent < 0 or kind[parent] != _CLIENT or kind[row] == _CONSUMER or service[row] == service[parent]:
            continue
        other = callee_row[parent]
        is_server = kind[row] == _SERVER
        if other < 0:
            callee_row[parent] = row
        elif is_server != (kind[other] == _SERVER):
            callee_row[parent] = row if is_server else other
        elif span_id[row] < span_id[other]:
            callee_row[parent] = row
    return callee_row


@entrance(INTS, CODES, CODES, INT)
def number_entities(callee_row: Int64s, service: Codes, name: Codes, width: int) -> tuple[Int64s, Int64s]:
    """Give the entities of a table numbers.

    Parameters
    ----------
    callee_row : int64[n]
        Row of the callee where a row is an edge, else -1.
    service, name : int32[n]
        -1 where there is none.
    width : int
        More than any of them.

    Returns
    -------
    number : int64[n]
        The number of each row's entity.
    keys : int64[entities]
        What each one is: ``(is_edge * width + service + 1) * width + second + 1``, where ``second`` is the
        callee's service of an edge and the name of an operation.
    """
    keys = np.empty(len(callee_row), dtype=np.int64)
    for row in range(len(callee_row)):
        is_edge = callee_row[row] >= 0
        called = service[max(callee_row[row], 0)]
        second = called if is_edge else name[row]
        keys[row] = (is_edge * width + service[row] + 1) * width + second + 1
    distinct = number(keys)
    return keys, distinct
