"""What time is charged to: operations (``service: name``) and edges (``caller -> callee``).

A CLIENT span with a child in another service is an edge and owns the gap between caller and callee;
every other span is an operation of its service. The names made here stand in every table and figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from perflab.trace.tree import Forest

Int64s = npt.NDArray[np.int64]

OPERATION = "operation"
EDGE = "edge"

COLUMNS = ("entity", "kind", "service", "name", "caller", "callee")
"""What an entity is described by."""


@dataclass(frozen=True, eq=False)
class Entities:
    """The entities of a span table.

    Attributes
    ----------
    code : int64[n]
        Per row of the span table the position of its entity in ``table``.
    rows : sequence of tuples of str
        The rows of ``table``.
    callee_row : int64[n]
        Row of the callee's span for a row that is an edge, else -1.
    """

    code: Int64s
    rows: Sequence[tuple[str, str, str, str, str, str]]
    callee_row: Int64s

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per entity, sorted by name: ``entity kind service name caller callee``.

        An edge's ``service`` is its caller and its ``name`` its callee; an operation has neither caller
        nor callee.
        """
        return pd.DataFrame(self.rows, columns=list(COLUMNS), index=range(len(self.rows))).astype("str")

    @cached_property
    def names(self) -> list[str]:
        """The entities' names, in the order of ``table``."""
        return [row[0] for row in self.rows]

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self.rows)


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
    from perflab.analysis.naming import number_entities
    from perflab.compiled import in_one_piece, translate

    callee_row = find_callees(spans, forest) if with_edges else np.full(len(spans), -1, dtype=np.int64)
    service, name = spans["service"].array, spans["name"].array
    services = [*service.categories.astype(object), ""]
    names = [*name.categories.astype(object), ""]
    width = max(len(services), len(names))
    number, keys = number_entities(
        callee_row, in_one_piece(service.codes, np.int32), in_one_piece(name.codes, np.int32), width
    )
    described = [_describe(services, names, width, key) for key in keys.tolist()]
    distinct = {described[at][0]: described[at] for at in np.argsort(keys)[::-1].tolist()}
    rows = [distinct[text] for text in sorted(distinct)]
    place = {row[0]: at for at, row in enumerate(rows)}
    translate(number, np.array([place[row[0]] for row in described], dtype=np.int64))
    return Entities(number, rows, callee_row)


def find_callees(spans: pd.DataFrame, forest: Forest) -> Int64s:
    """Return per row the callee's row where the row is a CLIENT span called into another service, else -1.

    The SERVER child comes before any other, a smaller span id before a larger.
    """
    from perflab.analysis.naming import choose_callees
    from perflab.compiled import in_one_piece

    return choose_callees(
        in_one_piece(forest.parent_row),
        forest.kind_rank,
        in_one_piece(spans["service"].array.codes, np.int32),
        in_one_piece(spans["span_id"], np.uint64),
    )


def _describe(
    services: Sequence[str], names: Sequence[str], width: int, key: int
) -> tuple[str, str, str, str, str, str]:
    """Read what `perflab.analysis.naming.number_entities` wrote; what has no name is the last, ""."""
    rest, second = divmod(key, width)
    is_edge, first = divmod(rest, width)
    service = services[first - 1]
    if is_edge:
        callee = services[second - 1]
        return edge_name(service, callee), EDGE, service, callee, service, callee
    return operation_name(service, names[second - 1]), OPERATION, service, names[second - 1], "", ""
