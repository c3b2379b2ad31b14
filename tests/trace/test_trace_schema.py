"""The span table: built, checked and joined."""

import numpy as np
import pandas as pd
import pytest

from perflab.errors import SchemaError
from perflab.trace.schema import (
    KINDS,
    SPAN_COLUMNS,
    STATUSES,
    check_spans,
    concat_spans,
    empty_spans,
    rank_kinds,
    span_table,
)

_LEAST = {
    "trace_id": ["a" * 32, "b" * 32],
    "span_id": [1, 2**64 - 1],
    "service": ["shop", "shop"],
    "name": ["GET /", "GET /x"],
    "start_ns": [10, 20],
    "duration_ns": [5, 6],
}


def test_missing_columns_get_their_empty_value():
    """A table built from the six needed columns has all others, empty."""
    # When
    table = span_table(_LEAST)
    # Then
    assert list(table.columns) == list(SPAN_COLUMNS)
    assert table.loc[1, "span_id"] == 2**64 - 1
    rest = table.loc[0, ["parent_span_id", "kind", "status", "host", "scheduled_ns", "shadow", "outcome"]]
    assert rest.tolist() == [0, "internal", "unset", "", 0, False, ""]
    assert table.loc[0, ["links", "attributes"]].tolist() == ["", ""]
    assert "internal" in KINDS
    assert "unset" in STATUSES


def test_dtypes_are_the_promised_ones():
    """Categories hold text, numbers are 64 bits wide, an empty table is no exception."""
    for table in (span_table(_LEAST), empty_spans()):
        for name, dtype in SPAN_COLUMNS.items():
            if dtype == "category":
                assert isinstance(table[name].dtype, pd.CategoricalDtype), name
                assert table[name].cat.categories.dtype == "str", name
            else:
                assert table[name].dtype == dtype, name


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"span_id": None}, ["missing", "span_id"]),
        ({"colour": ["red", "blue"]}, ["unknown", "colour"]),
        ({"host": ["one"]}, ["'host' has 1 values", "'trace_id' has 2"]),
        ({"start_ns": ["yesterday", "today"]}, ["'start_ns'", "int64"]),
        ({"span_id": [-1, 2]}, ["'span_id'", "uint64"]),
        ({"span_id": [2**64, 2]}, ["'span_id'", "uint64"]),
    ],
)
def test_columns_that_do_not_fit_are_named(change, words):
    """What cannot become a span table is refused by the column's name."""
    columns = {name: values for name, values in {**_LEAST, **change}.items() if values is not None}
    with pytest.raises(SchemaError) as caught:
        span_table(columns)
    for word in words:
        assert word in str(caught.value)


def test_check_names_what_is_there():
    """The message of a refused table lists its columns or its wrong dtypes; a good one comes back itself."""
    table = span_table(_LEAST)
    assert check_spans(table) is table
    assert check_spans(table.assign(extra=1))["extra"].tolist() == [1, 1]
    with pytest.raises(SchemaError, match="got list"):
        check_spans([1])
    with pytest.raises(SchemaError, match=r"\['start_ns'\] are missing; there are \['trace_id'"):
        check_spans(table.drop(columns="start_ns"))
    with pytest.raises(
        SchemaError, match="service is str, should be category; duration_ns is float64, should be int64"
    ):
        check_spans(table.astype({"duration_ns": "float64", "service": "str"}))


def test_concat_keeps_categories_and_rows():
    """Joined tables stay categorical, rows in order, index fresh, extra columns dropped."""
    # Given
    one = span_table(_LEAST)
    two = span_table({**_LEAST, "service": ["bank", "shop"], "trace_id": ["c" * 32, "a" * 32]})
    # When
    joined = concat_spans([one.assign(extra=1).iloc[::-1], empty_spans(), two])
    # Then
    check_spans(joined)
    assert list(joined.columns) == list(SPAN_COLUMNS)
    assert joined["service"].tolist() == ["shop", "shop", "bank", "shop"]
    assert joined["trace_id"].str[0].tolist() == ["b", "a", "c", "a"]
    assert joined.index.tolist() == [0, 1, 2, 3]
    assert len(concat_spans([])) == 0


def test_categoricals_pass_through():
    """A column that is categorical already is not turned into text and back."""
    codes = pd.Categorical.from_codes(np.array([0, 0]), categories=pd.Index(["shop"], dtype="str"))
    assert span_table({**_LEAST, "service": codes})["service"].tolist() == ["shop", "shop"]


def test_kinds_are_ranked_whatever_their_categories_are():
    """By the order of their names in the schema; unknown ones, and none at all, come last."""
    kinds = pd.Categorical(["consumer", "internal", None, "agent", "client"])
    assert rank_kinds(kinds)[kinds.codes].tolist() == [4, 0, 6, 5, 2]
