"""What time is charged to: operations (``service: name``) and edges (``caller -> callee``).

A CLIENT span with a child in another service is an edge and owns the gap between caller and callee;
every other span is an operation of its service. The names made here stand in every table and figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from perflab.trace.tree import Forest

Int64s = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

OPERATION = "operation"
EDGE = "edge"


@dataclass(frozen=True, eq=False)
class Entities:
    """The entities of a span table.

    Attributes
    ----------
    code : int64[n]
        Per row of the span table the position of its entity in ``table``.
    table : pandas.DataFrame
        One row per entity, sorted by name: ``entity kind service name caller callee``. An edge's
        ``service`` is its caller and its ``name`` its callee; an operation has neither caller nor callee.
    callee_row : int64[n]
        Row of the callee's span for a row that is an edge, else -1.
    """

    code: Int64s
    table: pd.DataFrame
    callee_row: Int64s

    @property
    def names(self) -> list[str]:
        """The entities' names, in the order of ``table``."""
        names: list[str] = self.table["entity"].tolist()
        return names


def operation_name(service: str, name: str) -> str:
    """Return an operation's name.

    Examples
    --------
    >>> operation_name("stock", "SELECT stock")
    'stock: SELECT stock'
    """
    return f"{service}: {name}"


def edge_name(caller: str, callee: str) -> str:
    """Return an edge's name.

    Examples
    --------
    >>> edge_name("order", "stock")
    'order -> stock'
    """
    return f"{caller} -> {callee}"


def find_entities(spans: pd.DataFrame, forest: Forest, *, with_edges: bool = True) -> Entities:
    """Name the entity of every span.

    Parameters
    ----------
    spans : pandas.DataFrame
        A span table.
    forest : Forest
        ``link(spans)``.
    with_edges : bool
        Whether there are edges, or every span is an operation.

    Returns
    -------
    Entities
        Edges go to the CLIENT span's SERVER child in another service, or, where there is none, to its
        child of any other kind there but CONSUMER; of several to the one with the smallest span id
        (not the earliest: clocks of several hosts must not decide).
    """
    size = len(spans)
    callee_row = find_callees(spans, forest) if with_edges else np.full(size, -1, dtype=np.int64)
    service = spans["service"].array
    service_code = np.asarray(service.codes, dtype=np.int64)
    name = spans["name"].array
    is_edge = callee_row >= 0
    second = np.where(is_edge, service_code[callee_row], np.asarray(name.codes, dtype=np.int64))
    span = max(len(service.categories), len(name.categories)) + 1
    key = (is_edge * span + service_code + 1) * span + second + 1
    inverse, used = _number(key)
    first_row = np.empty(used, dtype=np.int64)
    first_row[inverse[::-1]] = np.arange(size - 1, -1, -1)  # the last written, the first row, stays

    services = [*service.categories.astype(object), ""]
    names = [*name.categories.astype(object), ""]
    rows = [
        _describe(services, names, int(service_code[row]), int(second[row]), bool(is_edge[row]))
        for row in first_row.tolist()
    ]
    columns = ["entity", "kind", "service", "name", "caller", "callee"]
    table = pd.DataFrame(rows, columns=columns, index=range(used)).astype("str")
    distinct = table.drop_duplicates("entity").sort_values("entity", ignore_index=True)
    place = pd.Index(distinct["entity"]).get_indexer(table["entity"])
    code = place[inverse] if size else np.zeros(0, dtype=np.int64)
    return Entities(np.asarray(code, dtype=np.int64), distinct, callee_row)


def find_callees(spans: pd.DataFrame, forest: Forest) -> Int64s:
    """Return per row the callee's row where the row is a CLIENT span called into another service, else -1.

    The SERVER child comes before any other, a smaller span id before a larger.
    """
    callee_row = np.full(len(spans), -1, dtype=np.int64)
    kind = spans["kind"].array
    service_code = spans["service"].array.codes
    parent_row = forest.parent_row
    is_callee = (parent_row >= 0) & np.asarray(kind == "client")[parent_row] & ~np.asarray(kind == "consumer")
    is_callee &= service_code != service_code[parent_row]
    callee = np.flatnonzero(is_callee)
    callee_row[parent_row[callee]] = callee
    # most callers have one callee: the others choose
    several = callee[np.bincount(parent_row[callee], minlength=len(spans))[parent_row[callee]] > 1]
    span_id = spans["span_id"].to_numpy()[several]
    is_other = ~np.asarray(kind == "server")[several]
    worst_first = several[np.lexsort((span_id, is_other))[::-1]]
    callee_row[parent_row[worst_first]] = worst_first  # the last written, the best, stays
    return callee_row


def _number(key: Int64s) -> tuple[Int64s, int]:
    """Return the number of each key among the distinct ones, and how many those are."""
    highest = int(key.max(initial=0))
    if highest > 4 * len(key) + 1024:
        inverse, used = pd.factorize(key)
        return inverse, len(used)
    is_there = np.zeros(highest + 1, dtype=bool)
    is_there[key] = True
    number = np.cumsum(is_there) - 1
    return number[key], int(is_there.sum())


def _describe(
    services: Sequence[str], names: Sequence[str], first: int, second: int, is_edge: bool
) -> tuple[str, str, str, str, str, str]:
    service = services[first]
    if is_edge:
        callee = services[second]
        return edge_name(service, callee), EDGE, service, callee, service, callee
    return operation_name(service, names[second]), OPERATION, service, names[second], "", ""
