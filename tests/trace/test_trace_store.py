"""Span tables through Parquet: exact, whole, and refused by name when broken."""

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perflab.errors import SchemaError, SpanFormatError, TraceError
from perflab.testing import S, random_forest, spans
from perflab.trace.schema import FORMAT_VERSION, SPAN_COLUMNS, concat_spans, empty_spans
from perflab.trace.store import read_spans, sort_spans, write_spans


def _as_text(table):
    """Return a table's content whatever its categories' order."""
    plain = {name: table[name].astype("str") for name, dtype in SPAN_COLUMNS.items() if dtype == "category"}
    return table.assign(**plain)


def _assert_same(one, other):
    pd.testing.assert_frame_equal(_as_text(one), _as_text(other))


def _kept(path):
    return sorted(item.name for item in path.iterdir())


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 30))
def test_what_is_read_is_what_was_written(tmp_path_factory, seed, row_group_spans):
    """Any table comes back with its rows sorted by trace and its dtypes; row groups hold whole traces."""
    # Given
    path = tmp_path_factory.mktemp("spans") / "a.parquet"
    table = random_forest(seed, traces=seed % 6)
    # When
    assert write_spans(table, path, row_group_spans=row_group_spans) == path
    back = read_spans(path)
    # Then
    expected = sorted(
        (row.trace_id, row.start_ns, row.span_id, row.service, row.duration_ns) for row in table.itertuples()
    )
    assert [
        (row.trace_id, row.start_ns, row.span_id, row.service, row.duration_ns) for row in back.itertuples()
    ] == expected
    _assert_same(back, sort_spans(table))
    for name, dtype in SPAN_COLUMNS.items():
        assert isinstance(back[name].dtype, pd.CategoricalDtype) if dtype == "category" else True
    with pq.ParquetFile(path) as file:
        groups = [
            file.read_row_group(number)["trace_id"].to_pylist() for number in range(file.num_row_groups)
        ]
    assert len({trace for group in groups for trace in group}) == sum(len(set(group)) for group in groups)
    assert all(len(group) <= row_group_spans or len(set(group)) == 1 for group in groups)


def test_values_at_the_edges_survive(tmp_path):
    """Ids of 64 bits, negative durations, non-ASCII text, quotes, NUL and every column survive."""
    # Given
    table = spans(
        [
            S(
                "支付",
                'SELECT "x"\n\0',
                5,
                4,
                kind="client",
                status="error",
                host="h-1",
                outcome="timeout",
                shadow=True,
                scheduled_ms=3,
                links=[{"trace_id": "ab"}],
                attributes={"b": "é", "a": 1},
                span_id=2**64 - 1,
                parent_span_id=2**63,
            )
        ]
    )
    # When
    back = read_spans(write_spans(table, tmp_path / "a.parquet"))
    # Then
    _assert_same(back, table)
    assert back.loc[0, "duration_ns"] == -1_000_000
    assert back.loc[0, "attributes"] == '{"a": 1, "b": "é"}'


def test_any_parquet_reader_sees_plain_columns_and_the_version(tmp_path):
    """The file says its format and compression, and its text columns are plain strings."""
    path = write_spans(random_forest(1), tmp_path / "a.parquet")
    with pq.ParquetFile(path) as file:
        assert file.schema_arrow.metadata[b"perflab.format_version"] == str(FORMAT_VERSION).encode()
        assert file.schema_arrow.field("trace_id").type == pa.string()
        assert file.metadata.row_group(0).column(0).compression == "ZSTD"


def test_a_directory_is_read_as_one_table_however_it_is_split(tmp_path):
    """Parts, one file, and a run's directory give the same table."""
    # Given
    table = random_forest(3, traces=8)
    write_spans(table, tmp_path / "one" / "all.parquet")
    for number in range(3):
        write_spans(table.iloc[number::3], tmp_path / "run" / "spans" / f"part-{number}.parquet")
    (tmp_path / "run" / "spans" / ".part-9.parquet.1.part").write_bytes(b"half")
    # When
    one = read_spans(str(tmp_path / "one"))
    # Then
    _assert_same(read_spans(tmp_path / "run"), one)
    _assert_same(read_spans(tmp_path / "run" / "spans"), one)
    _assert_same(read_spans(tmp_path / "one" / "all.parquet"), one)
    assert len(one) == len(table)


def test_empty_tables_and_empty_directories(tmp_path):
    """No spans is a table without rows, from a file as from a directory."""
    (tmp_path / "spans").mkdir()
    for found in (
        read_spans(tmp_path),
        read_spans(write_spans(empty_spans(), tmp_path / "none.parquet")),
    ):
        _assert_same(found, empty_spans())
        assert len(concat_spans([found, random_forest(1)])) == len(random_forest(1))


def test_writing_replaces_in_one_step_and_leaves_nothing_aside(tmp_path):
    """A second write replaces the first; no other file is left in the directory."""
    path = tmp_path / "a.parquet"
    write_spans(random_forest(1, traces=1), path)
    write_spans(random_forest(2, traces=5), path)
    _assert_same(read_spans(path), sort_spans(random_forest(2, traces=5)))
    assert _kept(tmp_path) == ["a.parquet"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    """Where no file can be made the error names path and reason, and nothing is left."""
    # Given
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "dir.parquet" / "x").mkdir(parents=True)
    # Then
    with pytest.raises(TraceError, match=r"cannot write spans to .*file/a.parquet: .*File exists|Not a dir"):
        write_spans(random_forest(1), tmp_path / "file" / "a.parquet")
    with pytest.raises(TraceError, match=r"dir\.parquet"):
        write_spans(random_forest(1), tmp_path / "dir.parquet")
    assert _kept(tmp_path) == ["dir.parquet", "file"]


def test_broken_files_are_named(tmp_path):
    """A file cut short, garbage, nothing, and a text file in a directory: each named, as a format error."""
    # Given
    whole = write_spans(random_forest(1), tmp_path / "whole.parquet").read_bytes()
    (tmp_path / "whole.parquet").unlink()
    contents = {
        "cut": whole[: len(whole) // 2],
        "garbage": b"PAR1" + b"\xff" * 99,
        "empty": b"",
        "text": b"x,y\n",
    }
    for name, content in contents.items():
        path = tmp_path / f"{name}.parquet"
        path.write_bytes(content)
        # Then
        with pytest.raises(SpanFormatError, match=f"{name}.parquet cannot be read as Parquet"):
            read_spans(path)
        with pytest.raises(SpanFormatError, match=f"{name}.parquet"):
            read_spans(tmp_path)
        path.unlink()


def test_bytes_damaged_inside_are_never_another_exception(tmp_path):
    """Wherever one byte of a file is wrong, reading gives a table or one of our errors."""
    # Given
    path = write_spans(random_forest(1, traces=2), tmp_path / "a.parquet")
    whole = path.read_bytes()
    for place in range(0, len(whole), 37):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x5A]) + whole[place + 1 :])
        # Then
        try:
            read_spans(path)
        except (SpanFormatError, SchemaError) as error:
            assert "a.parquet" in str(error)  # noqa: PT017 - both outcomes are right


def test_foreign_and_newer_files_are_refused(tmp_path):
    """Parquet of something else, of a newer perflab, or without a column is told apart."""
    # Given
    foreign = tmp_path / "foreign.parquet"
    pq.write_table(pa.table({"price": [1]}), foreign)
    ours = pq.read_table(write_spans(random_forest(1), tmp_path / "ours.parquet"))
    newer, lacking, floating = (tmp_path / f"{name}.parquet" for name in ("newer", "lacking", "floating"))
    pq.write_table(ours.replace_schema_metadata({"perflab.format_version": "99"}), newer)
    pq.write_table(ours.drop_columns(["links"]), lacking)
    place = ours.schema.get_field_index("start_ns")
    pq.write_table(ours.set_column(place, "start_ns", ours["start_ns"].cast("float64", safe=False)), floating)
    # Then
    with pytest.raises(SchemaError, match=r"floating.parquet .* start_ns is double, should be int64"):
        read_spans(floating)
    with pytest.raises(SchemaError, match=r"foreign.parquet is Parquet but no span table .* \['price'\]"):
        read_spans(foreign)
    with pytest.raises(SchemaError, match=r"newer.parquet has span format 99; this perflab reads up to 1"):
        read_spans(newer)
    with pytest.raises(SchemaError, match=r"lacking.parquet lacks the columns \['links'\]"):
        read_spans(lacking)


def test_nothing_there(tmp_path):
    """A path that leads nowhere is said so."""
    with pytest.raises(SpanFormatError, match=r"no spans at .*nowhere: no such file"):
        read_spans(tmp_path / "nowhere")


def test_tables_with_holes_are_not_written(tmp_path):
    """A missing value in a text column would come back as something else: refused by name."""
    table = random_forest(1)
    with pytest.raises(SchemaError, match="'outcome'"):
        write_spans(table.assign(outcome=pd.Categorical([None] * len(table))), tmp_path / "a.parquet")
    assert _kept(tmp_path) == []
