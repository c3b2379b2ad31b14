"""Folded call paths: how much critical time was spent under which stack of entities.

The form flame charts are drawn from: one line per distinct stack, root first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

Int64s = npt.NDArray[np.int64]

MAX_FRAMES = 64
"""Deeper spans are charged to their ancestor at this depth: nobody reads further, and a trace of
20,000 nested calls would make a text of gigabytes."""

SEPARATOR = ";"


def fold_stacks(
    rows: Int64s,
    parent_row: Int64s,
    entity_code: Int64s,
    exclusive_ns: Int64s,
    request: Int64s,
    names: Sequence[str],
) -> pd.DataFrame:
    """Fold spans on critical paths into stacks.

    Parameters
    ----------
    rows : int64[m]
        Spans on a path, parents before children.
    parent_row, entity_code, exclusive_ns, request : int64[n]
        Per row of the span table; ``request`` numbers the tree.
    names : sequence of str
        Name per entity code.

    Returns
    -------
    pandas.DataFrame
        ``stack`` (names from the root down, joined by ``;``, a ``;`` inside a name written as ``,``),
        ``exclusive_ns``, ``traces`` (trees with this stack on their path); most time first.
    """
    node_of_row: dict[int, int] = {-1: -1}
    number: dict[tuple[int, int], int] = {}
    parent_of: list[int] = []
    entity_of: list[int] = []
    depth_of: list[int] = []
    parents, codes = parent_row[rows].tolist(), entity_code[rows].tolist()
    for row, parent, code in zip(rows.tolist(), parents, codes, strict=True):
        above = node_of_row.get(parent, -1)
        if above >= 0 and depth_of[above] >= MAX_FRAMES:
            node_of_row[row] = above
            continue
        node = number.setdefault((above, code), len(number))
        if node == len(parent_of):
            parent_of.append(above)
            entity_of.append(code)
            depth_of.append(1 if above < 0 else depth_of[above] + 1)
        node_of_row[row] = node
    nodes = np.array([node_of_row[row] for row in rows.tolist()], dtype=np.int64)
    exclusive = np.zeros(len(parent_of), dtype=np.int64)
    np.add.at(exclusive, nodes, exclusive_ns[rows])
    pairs = pd.DataFrame({"node": nodes, "request": request[rows]}).drop_duplicates()
    traces = np.bincount(pairs["node"].to_numpy(), minlength=len(parent_of))
    table = pd.DataFrame(
        {
            "stack": pd.array(_texts(parent_of, entity_of, names), dtype="str"),
            "exclusive_ns": exclusive,
            "traces": traces.astype(np.int64),
        }
    )
    return table.sort_values(["exclusive_ns", "stack"], ascending=[False, True], ignore_index=True)


def _texts(parent_of: Sequence[int], entity_of: Sequence[int], names: Sequence[str]) -> list[str]:
    clean = [name.replace(SEPARATOR, ",") for name in names]
    texts: list[str] = []
    for parent, entity in zip(parent_of, entity_of, strict=True):
        texts.append(clean[entity] if parent < 0 else texts[parent] + SEPARATOR + clean[entity])
    return texts
