"""Span tables on disk: Parquet, sorted by trace, row groups that hold whole traces.

Text columns are stored as plain Parquet strings (which any reader opens) and come back as categories.
A file is written aside and renamed, so a reader never meets half of one.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from perflab.errors import SchemaError, SpanFormatError, TraceError
from perflab.trace.schema import FORMAT_VERSION, SPAN_COLUMNS, check_spans, concat_spans, empty_spans

ROW_GROUP_SPANS = 128 * 1024
"""Spans in a row group, at most, unless one trace alone has more."""

_LOG = logging.getLogger(__name__)
_JSON_ENDINGS = (".json", ".json.gz", ".jsonl", ".jsonl.gz")
_VERSION_KEY = b"perflab.format_version"
CATEGORIES = [name for name, dtype in SPAN_COLUMNS.items() if dtype == "category"]
_ARROW_TYPES = {
    "category": pa.string(),
    "str": pa.string(),
    "uint64": pa.uint64(),
    "int64": pa.int64(),
    "bool": pa.bool_(),
}
_SCHEMA = pa.schema(
    [pa.field(name, _ARROW_TYPES[dtype], nullable=False) for name, dtype in SPAN_COLUMNS.items()],
    metadata={_VERSION_KEY: str(FORMAT_VERSION).encode()},
)


def write_spans(spans: pd.DataFrame, path: str | Path, *, row_group_spans: int = ROW_GROUP_SPANS) -> Path:
    """Write a span table to one Parquet file, in one step.

    Parameters
    ----------
    spans : pandas.DataFrame
        A span table; columns outside `SPAN_COLUMNS` are not written.
    path : str or Path
        The file; its directory is made if need be. An existing file is replaced.
    row_group_spans : int
        Spans in a row group, at most, unless one trace alone has more.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    SchemaError
        If it is no span table, or a text column has empty cells (use ``""``).
    TraceError
        If the file cannot be written; nothing is left behind.
    """
    with SpanWriter(path, row_group_spans=row_group_spans) as writer:
        writer.write(spans)
    return writer.path


class SpanWriter:
    """Write a span table larger than memory, part by part, to one Parquet file that appears when it is whole.

    Use it as a context manager. If the block ends with an error, nothing is left behind and a file that was
    there before stays.

    Parameters
    ----------
    path : str or Path
        The file; its directory is made if need be. An existing file is replaced.
    row_group_spans : int
        Spans in a row group, at most, unless one trace alone has more.
    """

    def __init__(self, path: str | Path, *, row_group_spans: int = ROW_GROUP_SPANS) -> None:
        self.path = Path(path)
        self.spans = 0
        self._limit = row_group_spans
        self._aside = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        self._last = ""
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> SpanWriter:
        with self._cleaning_up():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(
                self._aside, _SCHEMA, compression="zstd", write_page_checksum=True
            )
        return self

    def write(self, spans: pd.DataFrame) -> None:
        """Write the next part.

        Parameters
        ----------
        spans : pandas.DataFrame
            A span table of whole traces; their ids sort after those of the parts before.

        Raises
        ------
        SchemaError
            If it is no span table, a text column has empty cells (use ``""``), or its traces do not come
            after those that are written.
        TraceError
            If it cannot be written.
        """
        table = sort_spans(check_spans(spans))
        for name, dtype in SPAN_COLUMNS.items():
            if dtype in ("category", "str") and table[name].isna().any():
                raise SchemaError(f"column {name!r} of the span table has missing values; '' means none")
        if len(table):
            first, last = str(table["trace_id"].iloc[0]), str(table["trace_id"].iloc[-1])
            if self.spans and first <= self._last:
                raise SchemaError(
                    f"trace {first} comes after {self._last} in {self.path}: parts must be sorted"
                )
            self._last = last
        writer = self._writer
        if writer is None:
            raise TraceError(f"{self.path} is not open: use SpanWriter in a with statement")
        with self._cleaning_up():
            for start, end in _row_groups(table["trace_id"].array, self._limit):
                writer.write_table(_to_arrow(table.iloc[start:end]), row_group_size=max(end - start, 1))
        self.spans += len(table)

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        writer, self._writer = self._writer, None
        if kind is not None:
            with contextlib.suppress(OSError, pa.ArrowException):
                if writer is not None:
                    writer.close()
            with contextlib.suppress(OSError):
                self._aside.unlink(missing_ok=True)
        elif writer is not None:
            with self._cleaning_up():
                writer.close()
                self._aside.replace(self.path)

    @contextlib.contextmanager
    def _cleaning_up(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            with contextlib.suppress(OSError):
                self._aside.unlink(missing_ok=True)
            raise TraceError(f"cannot write spans to {self.path}: {error}") from error


def read_spans(path: str | Path) -> pd.DataFrame:
    """Read a span table.

    Parameters
    ----------
    path : str or Path
        A file of `write_spans`, a directory of ``*.parquet`` files, or a run's directory (its ``spans/``
        is read). Or a file of Jaeger's JSON or OTLP/JSON, gzipped or not (see
        `perflab.trace.jsonfile.read_json`), or a directory of such files and no Parquet. An empty directory
        gives an empty table.

    Returns
    -------
    pandas.DataFrame
        A span table, sorted by trace id, start and span id.

    Raises
    ------
    SpanFormatError
        If nothing is there, or a file is cut short or neither Parquet nor JSON of traces.
    SchemaError
        If a file is Parquet but no span table, or was written by a newer perflab.

    Notes
    -----
    Spans of a JSON file that cannot be used are left out; a warning says how many and why.
    """
    tables = [_read_file(file) for file in span_files(path)]
    if len(tables) == 1:
        return tables[0]
    return sort_spans(concat_spans(tables)) if tables else empty_spans()


def span_files(path: str | Path) -> list[Path]:
    """Return the files `read_spans` reads.

    Raises
    ------
    SpanFormatError
        If nothing is there.
    """
    path = Path(path)
    if path.is_dir():
        inside = path / "spans"
        folder = inside if inside.is_dir() else path
        return sorted(folder.glob("*.parquet")) or sorted(
            file for file in folder.iterdir() if file.name.lower().endswith(_JSON_ENDINGS)
        )
    if not path.exists():
        raise SpanFormatError(f"there are no spans at {path}: no such file or directory")
    return [path]


def sort_spans(spans: pd.DataFrame) -> pd.DataFrame:
    """Return the span table sorted by trace id, start and span id, with a fresh ``RangeIndex``."""
    trace_id = spans["trace_id"].array
    by_text = np.argsort(trace_id.categories.to_numpy(dtype=object), kind="stable")
    rank = np.empty(len(by_text) + 1, dtype=np.int64)
    rank[by_text] = np.arange(len(by_text))
    rank[-1] = -1  # code -1: no trace id
    trace_rank = rank[trace_id.codes]
    order = np.lexsort((spans["span_id"].to_numpy(), spans["start_ns"].to_numpy(), trace_rank))
    if np.array_equal(order, np.arange(len(order))):
        return spans.reset_index(drop=True)
    return spans.iloc[order].reset_index(drop=True)


def _row_groups(trace_id: pd.Categorical, limit: int) -> list[tuple[int, int]]:
    """Return (start, end) slices that end where a trace ends."""
    size = len(trace_id)
    if not size:
        return [(0, 0)]
    codes: npt.NDArray[Any] = np.asarray(trace_id.codes)
    ends = np.append(np.flatnonzero(codes[1:] != codes[:-1]) + 1, size)
    groups = []
    start = 0
    while start < size:
        place = int(np.searchsorted(ends, start + limit, side="right")) - 1
        end = int(ends[place]) if place >= 0 and ends[place] > start else int(ends[place + 1])
        groups.append((start, end))
        start = end
    return groups


def _to_arrow(rows: pd.DataFrame) -> pa.Table:
    arrays = []
    for field in _SCHEMA:
        values = rows[field.name]
        if isinstance(values.dtype, pd.CategoricalDtype):
            texts = pa.array(values.array.categories.to_numpy(dtype=object), type=pa.string())
            arrays.append(texts.take(pa.array(values.array.codes)))
        else:
            arrays.append(pa.array(values, type=field.type, from_pandas=False))
    return pa.Table.from_arrays(arrays, schema=_SCHEMA)


def _read_file(path: Path) -> pd.DataFrame:
    from perflab.trace.jsonfile import is_json, read_json

    if path.is_file() and is_json(path):
        found = read_json(path)
        if found.refused:
            _LOG.warning(
                "%s: %d of %d spans cannot be used; the first is %s",
                path,
                found.refused,
                found.refused + len(found.spans),
                found.reason,
            )
        return sort_spans(found.spans)
    try:
        with pq.ParquetFile(path) as file:
            schema, metadata = file.schema_arrow, file.metadata
        check_file(path, schema)
        with pq.ParquetFile(
            path, metadata=metadata, read_dictionary=CATEGORIES, page_checksum_verification=True
        ) as file:
            table = file.read(columns=list(SPAN_COLUMNS))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise SpanFormatError(
            f"{path} cannot be read as Parquet ({error}); it is cut short, damaged or something else"
        ) from error
    columns = {name: from_arrow(table[name], dtype) for name, dtype in SPAN_COLUMNS.items()}
    return check_spans(pd.DataFrame(columns))


def check_file(path: Path, schema: pa.Schema) -> None:
    """Refuse a Parquet file that is no span table.

    Raises
    ------
    SchemaError
        If it is not, or was written by a newer perflab; the message names what is there.
    """
    version = (schema.metadata or {}).get(_VERSION_KEY)
    if version is None:
        raise SchemaError(
            f"{path} is Parquet but no span table of perflab; its columns are {schema.names}. "
            "Build a table with perflab.trace.schema.span_table and write it with write_spans"
        )
    if not version.isdigit() or int(version) > FORMAT_VERSION:
        raise SchemaError(
            f"{path} has span format {version.decode(errors='replace')}; this perflab reads up to "
            f"{FORMAT_VERSION}. Use the perflab that wrote it, or a newer one"
        )
    missing = [name for name in SPAN_COLUMNS if name not in schema.names]
    if missing:
        raise SchemaError(f"{path} lacks the columns {missing}; it has {schema.names}")
    wrong = [
        f"{field.name} is {schema.field(field.name).type}, should be {field.type}"
        for field in _SCHEMA
        if schema.field(field.name).type != field.type
    ]
    if wrong:
        raise SchemaError(f"{path} is no span table: {'; '.join(wrong)}")


def from_arrow(column: pa.ChunkedArray, dtype: str) -> Any:
    """Return a column of a span table."""
    if dtype == "str":
        return pd.array(column, dtype="str")
    if dtype != "category":
        return column.to_numpy()
    chunk = column.unify_dictionaries().combine_chunks()
    if isinstance(chunk, pa.ChunkedArray):
        chunk = pa.concat_arrays(chunk.chunks) if chunk.num_chunks else pa.array([], chunk.type)
    texts = pd.Index(pd.array(chunk.dictionary, dtype="str"))
    codes = chunk.indices.to_numpy(zero_copy_only=False)
    return pd.Categorical.from_codes(codes, categories=texts)
