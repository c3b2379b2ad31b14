"""Results as HTML: small, escaped, from nowhere else."""

from __future__ import annotations

import pandas as pd
import pytest

from perflab.analysis.markup import html_result, show_counts, show_value


def test_everything_is_escaped():
    """Title, columns, cells and notes."""
    table = pd.DataFrame({"<i>": ["<b>&"]})
    shown = html_result("<u>", table, ["<i>"], ["<s>"])
    assert not any(tag in shown for tag in ("<i>", "<b>", "<u>", "<s>"))
    assert "&lt;b&gt;&amp;" in shown


def test_twelve_rows_and_how_many_more():
    """And only the columns that are there."""
    shown = html_result("t", pd.DataFrame({"a": range(20)}), ["a", "gone"])
    assert shown.count("<tr>") == 13
    assert "8 more rows" in shown
    assert "gone" not in shown


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "yes"), (False, ""), (1234.5, "1,234"), (0.00123, "0.00123"), (12345, "12,345"), ("x", "x")],
)
def test_cells(value, text):
    """Numbers as people read them."""
    assert show_value(value) == text


def test_counts_of_nothing_are_nothing():
    """Zeros are not worth a word."""
    assert show_counts({"orphans": 0}) == ""
