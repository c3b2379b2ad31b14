"""Span tables read in batches of whole traces."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perflab.errors import SchemaError, SpanFormatError
from perflab.testing import S, random_forest, spans
from perflab.trace.scan import ANALYSED, scan_spans
from perflab.trace.schema import SPAN_COLUMNS, concat_spans
from perflab.trace.store import SpanWriter, read_spans, sort_spans, write_spans


def text(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows in one order, categories as text."""
    plain = sort_spans(table).astype(
        {name: "str" for name, kind in SPAN_COLUMNS.items() if kind == "category"}
    )
    return plain.sort_values(["trace_id", "start_ns", "span_id", "kind"], ignore_index=True)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    files=st.integers(1, 4),
    group=st.sampled_from([1, 7, 1000]),
    least=st.sampled_from([1, 20, 10**6]),
)
def test_batches_hold_every_span_once_and_whole_traces(tmp_path_factory, seed, files, group, least):
    """However the spans are spread over files, row groups and batches."""
    # Given a table whose spans lie in several files at random
    table = random_forest(seed, traces=12)
    folder = tmp_path_factory.mktemp("spans")
    place = np.random.default_rng(seed).integers(0, files, len(table))
    for number in range(files):
        write_spans(table[place == number], folder / f"{number}.parquet", row_group_spans=group)
    # When it is read batch by batch
    scan = scan_spans(folder)
    batches = list(scan.batches(least=least))
    # Then nothing is lost and no trace is in two batches
    pd.testing.assert_frame_equal(text(concat_spans(batches)), text(table))
    traces = [set(batch["trace_id"].astype("str")) for batch in batches]
    assert not any(one & other for one, other in itertools.combinations(traces, 2))
    assert all(len(batch) >= least for batch in batches[:-1])
    # And what holds of all was known before
    assert scan.spans == len(table)
    assert (scan.begin_ns, scan.end_ns) == (table["start_ns"].min(), table["start_ns"].max())
    assert (scan.has_marked, scan.has_outcomes) == (False, False)
    assert scan.has_links == (table["links"] != "").any()


def test_what_is_marked_linked_or_generated_is_known(tmp_path):
    """From the row groups' statistics, before any span is read."""
    table = random_forest(3, generated=True)
    scan = scan_spans(write_spans(table, tmp_path / "spans.parquet"))
    assert scan.has_marked
    assert scan.has_outcomes


def test_columns_that_are_not_asked_for_are_empty(tmp_path):
    """They are there all the same: a batch is a span table."""
    path = write_spans(random_forest(3, generated=True), tmp_path / "spans.parquet")
    (batch,) = scan_spans(path).batches(ANALYSED)
    assert list(batch.columns) == list(SPAN_COLUMNS)
    assert set(batch["attributes"]) == set(batch["links"]) == set(batch["outcome"]) == {""}
    assert not batch["shadow"].any()
    assert batch["start_ns"].min() > 0


def test_a_sample_is_of_whole_traces_from_all_over(tmp_path):
    """Every so many row groups of one file, with every column; of several files the lowest traces."""
    # Given traces in the order of their ids and of time
    table = spans([S("shop", "GET /", 10 * place, 10 * place + 5) for place in range(1000)])
    one = write_spans(table, tmp_path / "one.parquet", row_group_spans=10)
    # When a tenth is asked for
    sample = scan_spans(one).sample(100)
    # Then it is of the beginning, the middle and the end
    assert len(sample) == 100
    assert (sample["start_ns"].min(), sample["start_ns"].max()) == (
        table["start_ns"].min(),
        table["start_ns"].max(),
    )
    # And all of it where that is enough
    pd.testing.assert_frame_equal(text(scan_spans(one).sample(10**6)), text(table))
    # And of two files whole traces are read, too
    for number in range(2):
        write_spans(table[table.index % 2 == number], tmp_path / f"two/{number}.parquet", row_group_spans=10)
    assert len(scan_spans(tmp_path / "two").sample(100)) >= 100


def test_nothing_to_read(tmp_path):
    """An empty folder and an empty table have no batches; a place that is not there is an error."""
    (tmp_path / "empty").mkdir()
    assert list(scan_spans(tmp_path / "empty").batches()) == []
    assert len(scan_spans(tmp_path / "empty").sample(10)) == 0
    scan = scan_spans(write_spans(random_forest(1).head(0), tmp_path / "none.parquet"))
    assert (list(scan.batches()), scan.begin_ns, scan.end_ns, scan.has_links) == ([], 0, 0, False)
    assert len(scan.sample(10)) == 0
    with pytest.raises(SpanFormatError, match="no such file"):
        scan_spans(tmp_path / "nowhere")


def test_files_that_are_none(tmp_path):
    """What is cut short, foreign or not sorted by trace is named."""
    path = write_spans(random_forest(1, traces=50), tmp_path / "spans.parquet")
    (tmp_path / "cut.parquet").write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SpanFormatError, match=r"cut\.parquet cannot be read as Parquet"):
        scan_spans(tmp_path / "cut.parquet")
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(SchemaError, match="no span table"):
        scan_spans(tmp_path / "other.parquet")
    # a row group that begins before the one ahead of it, by hand
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    with pq.ParquetWriter(tmp_path / "mixed.parquet", table.schema) as writer:
        writer.write_table(table.slice(100))
        writer.write_table(table.slice(0, 100))
    with pytest.raises(SpanFormatError, match=r"mixed\.parquet is not sorted by trace"):
        list(scan_spans(tmp_path / "mixed.parquet").batches(least=1))


def test_damage_inside_is_met_where_it_is_read(tmp_path):
    """A page that is not what was written is an error, not a number."""
    path = write_spans(random_forest(1, traces=400), tmp_path / "spans.parquet")
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(SpanFormatError, match=r"spans\.parquet cannot be read"):
        list(scan_spans(path).batches())


def write_parts(path: Path, parts: list[pd.DataFrame]) -> int:
    with SpanWriter(path) as writer:
        for part in parts:
            writer.write(part)
    return writer.spans


def test_a_writer_takes_parts_in_order(tmp_path):
    """Parts become row groups of one file; one that comes too late is refused and nothing is left."""
    table = sort_spans(random_forest(5, traces=20))
    ids = table["trace_id"].astype("str")
    middle = sorted(set(ids))[10]
    parts = [table[ids < middle], table[ids >= middle]]
    assert write_parts(tmp_path / "parts.parquet", parts) == len(table)
    pd.testing.assert_frame_equal(text(read_spans(tmp_path / "parts.parquet")), text(table))
    with pytest.raises(SchemaError, match="parts must be sorted"):
        write_parts(tmp_path / "x.parquet", [table[ids >= middle], table[ids < middle]])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parts.parquet"]
