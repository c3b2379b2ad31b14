"""How results show themselves in a notebook: a small table, escaped, nothing from outside."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import pandas as pd

_ROWS = 12


def html_result(title: str, table: pd.DataFrame, columns: Sequence[str], notes: Sequence[str] = ()) -> str:
    """Return a result as an HTML fragment.

    Parameters
    ----------
    title : str
        The line above the table.
    table : pandas.DataFrame
        Of which the first 12 rows are shown.
    columns : sequence of str
        The columns to show; those that are not there are passed over.
    notes : sequence of str
        Lines below the table.

    Returns
    -------
    str
        Every text in it is escaped; there is no script, style sheet or address.

    Examples
    --------
    >>> html_result("one", pd.DataFrame({"entity": ["<b>"], "mean_ms": [1.25]}), ["entity", "mean_ms"])
    '<p>one</p><table><thead><tr><th>entity</th><th>mean_ms</th></tr></thead><tbody><tr><td>&lt;b&gt;</td><td>1.25</td></tr></tbody></table>'
    """
    shown = [name for name in columns if name in table.columns]
    head = "".join(f"<th>{escape(name)}</th>" for name in shown)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(show_value(value))}</td>" for value in row) + "</tr>"
        for row in table[shown].head(_ROWS).itertuples(index=False)
    )
    lines = list(notes)
    if len(table) > _ROWS:
        lines.insert(0, f"and {len(table) - _ROWS} more rows in .table")
    below = "".join(f"<p>{escape(line)}</p>" for line in lines)
    return f"<p>{escape(title)}</p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{below}"


def show_value(value: Any) -> str:
    """Write one cell.

    Examples
    --------
    >>> show_value(0.12345), show_value(float("nan")), show_value(12345), show_value(["a", "b"])
    ('0.123', '', '12,345', 'a, b')
    """
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value)
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, float):
        if math.isnan(value):
            return ""
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def show_counts(counts: Mapping[str, int]) -> str:
    """Write the counts that are not zero in one line.

    Examples
    --------
    >>> show_counts({"traces": 1200, "orphans": 0, "clipped": 3})
    'traces 1,200, clipped 3'
    """
    return ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in counts.items() if count)
