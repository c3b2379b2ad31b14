"""Where received spans wait: in memory up to a bound, then in Parquet parts.

A full disk must not stop the receiver nor pass unnoticed: what cannot be written is held a little
longer, then lost, counted, and raised at the end. Batches are added by the event loop and parts written
by threads; ``_writing`` is held through a whole write, ``_changing`` only for moments.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import pandas as pd

from perflab.errors import TraceError
from perflab.trace.otlp import Batch, batch_table
from perflab.trace.schema import concat_spans
from perflab.trace.store import read_spans, write_spans

_LOG = logging.getLogger(__name__)


@dataclass
class Received:
    """What a collector has received so far.

    Attributes
    ----------
    spans, batches : int
        Spans kept, and the requests they came in.
    refused : int
        Spans of readable requests left out, without usable id or time.
    malformed : int
        Requests that could not be read at all.
    lost : int
        Spans accepted that could not be kept because they could not be written.
    """

    spans: int = 0
    batches: int = 0
    refused: int = 0
    malformed: int = 0
    lost: int = 0


class Spool:
    """The spans a receiver accepted: batches in memory, and parts on disk.

    Parameters
    ----------
    folder : Path or None
        Where parts are written; None keeps everything in memory, as tables.
    limit : int
        Spans held before a part is written. While nothing can be written, up to twice as many are held.
    received : Received
        Counts to keep.
    """

    def __init__(self, folder: Path | None, limit: int, received: Received) -> None:
        self._folder = folder
        self._limit = limit
        self._received = received
        self._changing = Lock()
        self._writing = Lock()
        self._batches: list[Batch] = []
        self._held = 0
        self._write_above = limit
        self._tables: list[pd.DataFrame] = []
        self._parts: list[Path] = []
        self._failure: TraceError | None = None

    def add(self, batch: Batch) -> bool:
        """Hold a batch; return whether it is time to write a part."""
        with self._changing:
            self._received.batches += 1
            self._received.spans += len(batch)
            self._received.refused += batch.refused
            if len(batch):
                self._batches.append(batch)
                self._held += len(batch)
            return self._held > self._write_above

    def write_part(self) -> None:
        """Write what is held to a part; if that fails keep it, within bounds."""
        with self._writing:
            with self._changing:
                if self._held <= self._write_above:
                    return  # another thread wrote it while this one waited
                batches = list(self._batches)
            self._write(batches)

    def finish(self) -> None:
        """Write the last part.

        Raises
        ------
        TraceError
            If accepted spans could not be kept, now or earlier.
        """
        with self._writing:
            if self._folder is not None:
                if self._batches:
                    self._write(list(self._batches))
                if self._batches:
                    self._lose(len(self._batches))
            if self._received.lost and self._failure is not None:
                raise TraceError(
                    f"{self._received.lost} of {self._received.spans} received spans are lost: "
                    f"{self._failure}. Free space for {self._folder} and run again"
                ) from self._failure

    def table(self) -> pd.DataFrame:
        """Return all spans kept so far as one span table."""
        with self._writing:
            with self._changing:
                batches = list(self._batches)
            parts = [read_spans(part) for part in self._parts]
            return concat_spans([*parts, *self._tables, batch_table(batches)])

    def _write(self, batches: list[Batch]) -> None:
        table = batch_table(batches)
        if self._folder is None:
            self._tables.append(table)
            self._forget(len(batches))
            return
        part = _next_part(self._folder)
        try:
            write_spans(table, part)
        except TraceError as error:
            _LOG.warning("spans could not be written and are held in memory: %s", error)
            self._failure = self._failure or error
            self._make_room()
        else:
            self._parts.append(part)
            self._forget(len(batches))

    def _forget(self, batches: int) -> None:
        """Drop the oldest batches, which are kept elsewhere now."""
        with self._changing:
            self._held -= sum(len(batch) for batch in self._batches[:batches])
            del self._batches[:batches]
            self._write_above = self._limit

    def _make_room(self) -> None:
        """After a failed write: lose the oldest beyond twice the bound, and try again a little later."""
        surplus = 0
        excess = self._held - 2 * self._limit
        while excess > 0:
            excess -= len(self._batches[surplus])
            surplus += 1
        self._lose(surplus)
        with self._changing:
            self._write_above = self._held + self._limit // 4

    def _lose(self, batches: int) -> None:
        lost = sum(len(batch) for batch in self._batches[:batches])
        self._received.lost += lost
        self._forget(batches)


def _next_part(folder: Path) -> Path:
    numbers = [int(part.stem[5:]) for part in folder.glob("part-*.parquet") if part.stem[5:].isdigit()]
    return folder / f"part-{max(numbers, default=0) + 1:05d}.parquet"
