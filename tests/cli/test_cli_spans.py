"""What analysing verbs share: rows as JSON knows them, tables as a terminal shows them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from perflab.cli._spans import find_spans, print_counts, print_json, print_table, records
from perflab.errors import ConfigError, PerflabError
from perflab.testing import S, spans
from perflab.trace.store import write_spans


def test_rows_become_json(capsys: pytest.CaptureFixture[str]):
    """NaN becomes null, numpy's numbers and arrays become plain."""
    table = pd.DataFrame({"a": [1.5, np.nan], "ids": [["x"], []]})
    print_json({"rows": records(table), "count": np.int64(3), "of": np.arange(2)})
    assert json.loads(capsys.readouterr().out) == {
        "rows": [{"a": 1.5, "ids": ["x"]}, {"a": None, "ids": []}],
        "count": 3,
        "of": [0, 1],
    }


def test_a_table_is_cut_and_says_so(capsys: pytest.CaptureFixture[str]):
    """The columns asked for that are there, so many rows, and how many more."""
    print_table(pd.DataFrame({"a": [1, 2, 3], "b": [4, 5, 6]}), ("b", "c"), 2)
    print_table(pd.DataFrame({"a": []}), ("a",), 2)
    print_counts({"traces": 2, "orphans": 0, "real_traces_left_out": 1}, of="after")
    assert capsys.readouterr().out.split("\n") == [
        *("", " b", " 4", " 5", "(1 more rows; --top 3 shows them all)"),
        *("after: traces 2, real traces left out 1", ""),
    ]


def test_spans_are_found_by_path(tmp_path: Path):
    """A file and its folder; what is neither is asked for among the runs."""
    write_spans(spans([S("shop", "GET /", 0, 1)]), tmp_path / "some" / "a.parquet")
    assert len(find_spans(str(tmp_path / "some"), tmp_path)) == 1
    assert len(find_spans(str(tmp_path / "some" / "a.parquet"), tmp_path)) == 1
    with pytest.raises(PerflabError, match="nowhere") as caught:
        find_spans("nowhere", tmp_path)
    assert isinstance(caught.value, ConfigError)
