"""The one table every room speaks: spans.

A plain `pandas.DataFrame` with the columns of `SPAN_COLUMNS`, one row per span. It is checked by
`check_spans` at every door and joined only by `concat_spans`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import union_categoricals

from perflab.errors import SchemaError

FORMAT_VERSION = 1

SPAN_COLUMNS: Mapping[str, str] = MappingProxyType(
    {
        "trace_id": "category",
        "span_id": "uint64",
        "parent_span_id": "uint64",
        "service": "category",
        "name": "category",
        "kind": "category",
        "status": "category",
        "host": "category",
        "start_ns": "int64",
        "duration_ns": "int64",
        "scheduled_ns": "int64",
        "shadow": "bool",
        "outcome": "category",
        "links": "str",
        "attributes": "str",
    }
)
"""Column name -> dtype. ``span_id`` 0 never occurs; ``parent_span_id`` 0 = no parent; ``scheduled_ns``
0 = not a generated request; ``links`` and ``attributes`` hold JSON text (``""`` = none)."""

KINDS = ("internal", "server", "client", "producer", "consumer")
STATUSES = ("unset", "ok", "error")

GENERATOR_SERVICE = "perflab"
"""Service name of the load engine's own requests."""


def span_table(columns: Mapping[str, Sequence[Any] | np.ndarray]) -> pd.DataFrame:
    """Build a span table from columns, filling what is missing with its empty value.

    Parameters
    ----------
    columns : mapping of str to sequence
        At least ``trace_id span_id service name start_ns duration_ns``, all of one length.

    Returns
    -------
    pandas.DataFrame
        The columns of `SPAN_COLUMNS`, in that order, checked.

    Raises
    ------
    SchemaError
        If a column is missing, unknown, of another length or of a type that cannot be converted.
    """
    needed = ("trace_id", "span_id", "service", "name", "start_ns", "duration_ns")
    missing = [name for name in needed if name not in columns]
    unknown = [name for name in columns if name not in SPAN_COLUMNS]
    if missing or unknown:
        raise SchemaError(
            f"cannot build a span table: missing columns {missing}, unknown columns {unknown}; "
            f"the columns are {list(SPAN_COLUMNS)}"
        )
    size = len(columns["trace_id"])
    series: dict[str, Any] = {}
    for name, dtype in SPAN_COLUMNS.items():
        values = columns.get(name)
        if values is not None and len(values) != size:
            raise SchemaError(f"column {name!r} has {len(values)} values, 'trace_id' has {size}")
        series[name] = _column(name, dtype, values, size)
    return check_spans(pd.DataFrame(series))


def empty_spans() -> pd.DataFrame:
    """Return a span table without rows."""
    needed = ("trace_id", "span_id", "service", "name", "start_ns", "duration_ns")
    return span_table({name: [] for name in needed})


def check_spans(spans: pd.DataFrame) -> pd.DataFrame:
    """Check that a table is a span table and return it unchanged.

    Parameters
    ----------
    spans : pandas.DataFrame
        Extra columns are allowed; the columns of `SPAN_COLUMNS` must be there with their dtypes.

    Returns
    -------
    pandas.DataFrame
        The very same object.

    Raises
    ------
    SchemaError
        If it is no DataFrame, lacks a column or has one of another dtype; the message names what is there.
    """
    if not isinstance(spans, pd.DataFrame):
        raise SchemaError(f"expected a span table (pandas.DataFrame), got {type(spans).__name__}")
    missing = [name for name in SPAN_COLUMNS if name not in spans.columns]
    if missing:
        raise SchemaError(
            f"not a span table: columns {missing} are missing; there are {list(spans.columns)}. "
            "Build one with perflab.trace.schema.span_table or read one with perflab.read_spans"
        )
    dtypes = dict(zip(spans.columns, spans.dtypes, strict=True))
    wrong = [
        f"{name} is {dtypes[name]}, should be {dtype}"
        for name, dtype in SPAN_COLUMNS.items()
        if not _is_dtype(dtypes[name], dtype)
    ]
    if wrong:
        raise SchemaError("not a span table: " + "; ".join(wrong))
    return spans


def concat_spans(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Join span tables, keeping categories categories.

    `pandas.concat` turns categoricals with different categories into text; this does not.

    Parameters
    ----------
    tables : iterable of pandas.DataFrame
        Span tables; columns outside `SPAN_COLUMNS` are dropped.

    Returns
    -------
    pandas.DataFrame
        A span table with a fresh ``RangeIndex``; rows in the order given.

    Raises
    ------
    SchemaError
        If one of them is not a span table.
    """
    checked = [check_spans(table) for table in tables]
    if not checked:
        return empty_spans()
    joined: dict[str, Any] = {}
    for name, dtype in SPAN_COLUMNS.items():
        parts = [table[name] for table in checked]
        if dtype == "category":
            joined[name] = union_categoricals(parts)
        else:
            joined[name] = pd.concat(parts, ignore_index=True)
    return pd.DataFrame(joined)


def rank_kinds(kind: pd.Categorical) -> np.ndarray:
    """Return the place in `KINDS` of every category of kinds.

    Parameters
    ----------
    kind : pandas.Categorical
        That column of a span table.

    Returns
    -------
    int8[categories + 1]
        ``len(KINDS)`` for a kind there is not, one more for none at all, which is the last.
    """
    texts = kind.categories.tolist()
    places = [KINDS.index(text) if text in KINDS else len(KINDS) for text in texts]
    return np.array([*places, len(KINDS) + 1], dtype=np.int8)


def _column(name: str, dtype: str, values: Sequence[Any] | np.ndarray | None, size: int) -> Any:
    if values is None:
        if dtype == "category":
            filler = {"kind": "internal", "status": "unset"}.get(name, "")
            return pd.Categorical.from_codes(
                np.zeros(size, dtype=np.int8), categories=pd.Index([filler], dtype="str")
            )
        if dtype == "str":
            return pd.array([""] * size, dtype="str")
        return np.zeros(size, dtype=dtype)
    try:
        if dtype == "category":
            if isinstance(values, pd.Categorical):
                return values
            return _categories(values)
        if dtype == "str":
            return pd.array(values, dtype="str")
        return np.asarray(values, dtype=dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise SchemaError(f"column {name!r} cannot be read as {dtype}: {error}") from error


def _categories(values: Sequence[Any] | np.ndarray) -> pd.Categorical:
    """Return texts as a categorical, its categories sorted."""
    codes, texts = pd.factorize(np.asarray(values, dtype=object))
    if not all(type(text) is str for text in texts):
        return pd.Series(values, dtype="str").astype("category").array
    by_text = np.argsort(texts, kind="stable")
    place = np.empty(len(texts) + 1, dtype=np.int64)
    place[by_text] = np.arange(len(texts))
    place[-1] = -1  # no value at all
    return pd.Categorical.from_codes(place[codes], categories=pd.Index(texts[by_text], dtype="str"))


def _is_dtype(actual: Any, wanted: str) -> bool:
    if wanted == "category":
        return isinstance(actual, pd.CategoricalDtype)
    if wanted == "str":
        return bool(pd.api.types.is_string_dtype(actual)) and not isinstance(actual, pd.CategoricalDtype)
    return str(actual) == wanted
