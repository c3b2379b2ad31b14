"""Span tables larger than memory: read in batches of whole traces, of the columns that are needed.

The files of `perflab.trace.store` are sorted by trace and say of each row group where its traces begin. So
any number of files can be read side by side, a few row groups at a time, and no trace is ever in two batches.
What is true of all spans (how many, from when to when, whether any is marked) is known before any is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from perflab.errors import SpanFormatError
from perflab.trace.schema import SPAN_COLUMNS, check_spans, empty_spans
from perflab.trace.store import CATEGORIES, check_file, from_arrow, span_files

BATCH_SPANS = 128 * 1024
"""Spans in a batch, at least, unless there are no more."""

ANALYSED = (
    "trace_id",
    "span_id",
    "parent_span_id",
    "service",
    "name",
    "kind",
    "host",
    "start_ns",
    "duration_ns",
)
"""The columns no analysis can do without."""

_LAST = "\uffff"


@dataclass(frozen=True, eq=False)
class SpanScan:
    """What there is to read, opened by `scan_spans`.

    Attributes
    ----------
    files : tuple of Path
    spans, row_groups : int
        In all files.
    begin_ns, end_ns : int
        The earliest and the latest start of a span.
    has_marked : bool
        Whether any span is marked test traffic.
    has_links : bool
        Whether any span links to another.
    has_outcomes : bool
        Whether any span is a generated request.
    """

    files: tuple[Path, ...]
    _opened: tuple[_File, ...] = field(repr=False)

    @cached_property
    def spans(self) -> int:
        """Spans in all files."""
        return sum(file.metadata.num_rows for file in self._opened)

    @cached_property
    def row_groups(self) -> int:
        """Row groups in all files."""
        return sum(file.metadata.num_row_groups for file in self._opened)

    @cached_property
    def begin_ns(self) -> int:
        """The earliest start of a span; 0 without any."""
        return min((low for low, _ in self._bounds("start_ns")), default=0)

    @cached_property
    def end_ns(self) -> int:
        """The latest start of a span; 0 without any."""
        return max((high for _, high in self._bounds("start_ns")), default=0)

    @cached_property
    def has_marked(self) -> bool:
        """Whether any span is marked."""
        return any(high for _, high in self._bounds("shadow"))

    @cached_property
    def has_links(self) -> bool:
        """Whether any span has links."""
        return any(high != "" for _, high in self._bounds("links"))

    @cached_property
    def has_outcomes(self) -> bool:
        """Whether any span has an outcome."""
        return any(high != "" for _, high in self._bounds("outcome"))

    def batches(
        self, columns: Iterable[str] = SPAN_COLUMNS, least: int = BATCH_SPANS
    ) -> Iterator[pd.DataFrame]:
        """Read everything.

        Parameters
        ----------
        columns : iterable of str
            Those to read, at least ``trace_id``; the others are there with their empty value in every row.
        least : int
            Spans in a batch, at least, unless there are no more.

        Yields
        ------
        pandas.DataFrame
            Span tables of whole traces. Within each, the rows of one trace are together; where there are
            several files they need not be sorted by start.

        Raises
        ------
        SpanFormatError
            If a file cannot be read on, or is not sorted by trace.
        """
        wanted = [name for name in SPAN_COLUMNS if name in set(columns)]
        kept: list[pa.Table] = []
        size = 0
        for parts in self._whole_traces(wanted):
            kept += parts
            size += sum(part.num_rows for part in parts)
            if size >= least:
                yield _to_spans(kept)
                kept, size = [], 0
        if size:
            yield _to_spans(kept)

    def sample(self, most_spans: int) -> pd.DataFrame:
        """Read whole traces, with every column.

        Parameters
        ----------
        most_spans : int
            About how many spans.

        Returns
        -------
        pandas.DataFrame
            Of one file, row groups from all over it. Of several, where no row group is sure to hold whole
            traces, those with the lowest ids: as good a sample where ids are random.
        """
        if len(self._opened) != 1:
            return next(iter(self.batches(least=most_spans)), empty_spans())
        (file,) = self._opened
        groups = file.metadata.num_row_groups
        wanted = max(1, int(groups * most_spans / max(1, self.spans)))
        chosen = np.unique(np.linspace(0, groups - 1, min(wanted, groups)).astype(int)).tolist()
        return _to_spans([file.read(number, list(SPAN_COLUMNS)) for number in chosen])

    def _bounds(self, column: str) -> Iterator[tuple[Any, Any]]:
        """Return the least and the greatest value of each row group with rows in it, read if need be."""
        for file in self._opened:
            for number in range(file.metadata.num_row_groups):
                if file.metadata.row_group(number).num_rows:
                    yield file.bounds(number, column)

    def _whole_traces(self, columns: list[str]) -> Iterator[list[pa.Table]]:
        """Read row groups in the order of where they begin; give out the traces nothing more can come of."""
        waiting: list[list[pa.Table]] = [[] for _ in self._opened]
        reached = [0] * len(self._opened)
        nexts = [file.begins(0) for file in self._opened]
        while any(first < _LAST for first in nexts):
            at = nexts.index(min(nexts))
            file = self._opened[at]
            waiting[at].append(file.read(reached[at], columns))
            reached[at] += 1
            before, nexts[at] = nexts[at], file.begins(reached[at])
            if nexts[at] < before:
                raise SpanFormatError(f"{file.path} is not sorted by trace; write it with write_spans")
            bound = min(nexts)
            given: list[pa.Table] = []
            for number, tables in enumerate(waiting):
                whole, waiting[number] = _split(tables, bound)
                given += whole
            if given:
                yield given


def scan_spans(path: str | Path) -> SpanScan:
    """Open span tables on disk without reading them.

    Parameters
    ----------
    path : str or Path
        As for `perflab.trace.store.read_spans`, Parquet only.

    Raises
    ------
    SpanFormatError
        If nothing is there, or a file is cut short or no Parquet.
    SchemaError
        If a file is Parquet but no span table, or was written by a newer perflab.
    """
    files = span_files(path)
    return SpanScan(tuple(files), tuple(_File.open(file) for file in files))


@dataclass(frozen=True, eq=False)
class _File:
    """One Parquet file, opened for each reading, so that hundreds of them hold no descriptors."""

    path: Path
    metadata: pq.FileMetaData

    @classmethod
    def open(cls, path: Path) -> _File:
        try:
            with pq.ParquetFile(path) as file:
                schema, metadata = file.schema_arrow, file.metadata
        except (pa.ArrowException, OSError, ValueError) as error:
            raise _unreadable(path, error) from error
        check_file(path, schema)
        return cls(path, metadata)

    def read(self, number: int, columns: Sequence[str]) -> pa.Table:
        try:
            with pq.ParquetFile(
                self.path,
                metadata=self.metadata,
                read_dictionary=CATEGORIES,
                page_checksum_verification=True,
                memory_map=True,
            ) as file:
                return file.read_row_group(number, columns=list(columns), use_threads=False)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise _unreadable(self.path, error) from error

    def begins(self, number: int) -> str:
        """Return the first trace id of a row group; what sorts after all of them where there is no more."""
        while number < self.metadata.num_row_groups:
            if self.metadata.row_group(number).num_rows:
                return str(self.bounds(number, "trace_id")[0])
            number += 1
        return _LAST

    def bounds(self, number: int, column: str) -> tuple[Any, Any]:
        group = self.metadata.row_group(number)
        statistics = group.column(list(self.metadata.schema.names).index(column)).statistics
        if statistics is not None and statistics.has_min_max:
            return statistics.min, statistics.max
        values = self.read(number, [column])[column]
        found = pa.compute.min_max(values.cast(pa.string()) if column in CATEGORIES else values)
        return found["min"].as_py(), found["max"].as_py()


def _split(tables: list[pa.Table], bound: str) -> tuple[list[pa.Table], list[pa.Table]]:
    """Return the rows of traces before a bound, and the rest."""
    if bound >= _LAST:
        return tables, []
    whole, rest = [], []
    for table in tables:
        is_before = _before(table["trace_id"], bound)
        if is_before.all():
            whole.append(table)
        elif is_before.any():
            whole.append(table.filter(pa.array(is_before)))
            rest.append(table.filter(pa.array(~is_before)))
        else:
            rest.append(table)
    return whole, rest


def _before(trace_id: pa.ChunkedArray, bound: str) -> npt.NDArray[np.bool_]:
    found = []
    for chunk in trace_id.chunks:
        texts = pa.compute.less(chunk.dictionary, bound).to_numpy(zero_copy_only=False).astype(bool)
        found.append(texts[chunk.indices.to_numpy(zero_copy_only=False)])
    return np.concatenate(found) if found else np.zeros(0, dtype=bool)


def _to_spans(tables: list[pa.Table]) -> pd.DataFrame:
    table = tables[0] if len(tables) == 1 else pa.concat_tables(tables)
    size = table.num_rows
    columns = {
        name: from_arrow(table[name], dtype) if name in table.column_names else _constant(name, dtype, size)
        for name, dtype in SPAN_COLUMNS.items()
    }
    return check_spans(pd.DataFrame(columns, copy=False))


def _constant(name: str, dtype: str, size: int) -> Any:
    if dtype == "category":
        value = "unset" if name == "status" else ""
        return pd.Categorical.from_codes(np.zeros(size, np.int8), categories=pd.Index([value], dtype="str"))
    if dtype == "str":
        return pd.array(pa.repeat(pa.scalar("", pa.large_string()), size), dtype="str")
    return np.zeros(size, dtype=dtype)


def _unreadable(path: Path, error: Exception) -> SpanFormatError:
    return SpanFormatError(
        f"{path} cannot be read as Parquet ({error}); it is cut short, damaged or something else"
    )
