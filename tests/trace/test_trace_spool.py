"""Received spans in memory and parts, with a disk that fails."""

import threading

import pytest

from perflab.errors import TraceError
from perflab.trace.otlp import Batch
from perflab.trace.spool import Received, Spool
from perflab.trace.store import read_spans


def _batch(*span_ids):
    size = len(span_ids)
    batch = Batch()
    for name in batch.columns:
        batch.columns[name] = [""] * size
    batch.columns |= {
        "trace_id": ["ab" * 16] * size,
        "span_id": list(span_ids),
        "parent_span_id": [0] * size,
        "kind": ["server"] * size,
        "status": ["unset"] * size,
        "start_ns": list(span_ids),
        "duration_ns": [1] * size,
        "shadow": [False] * size,
    }
    return batch


def _ids(table):
    return sorted(table["span_id"].tolist())


def test_parts_are_written_above_the_bound(tmp_path):
    """Up to the bound nothing is written; above it all that is held becomes a part; the rest at the end."""
    # Given
    spool = Spool(tmp_path, 3, Received())
    # Then
    assert not spool.add(_batch(1, 2, 3))
    assert spool.add(_batch(4))
    spool.write_part()
    assert _ids(read_spans(tmp_path / "part-00001.parquet")) == [1, 2, 3, 4]
    assert not spool.add(_batch(5))
    spool.write_part()
    assert len(list(tmp_path.iterdir())) == 1
    assert _ids(spool.table()) == [1, 2, 3, 4, 5]
    spool.finish()
    assert _ids(read_spans(tmp_path / "part-00002.parquet")) == [5]
    assert _ids(spool.table()) == [1, 2, 3, 4, 5]


def test_parts_of_an_earlier_run_are_kept(tmp_path):
    """A spool in a directory that has parts goes on numbering, and shows only its own spans."""
    # Given
    for number in (1, 2):
        spool = Spool(tmp_path, 10, Received())
        spool.add(_batch(number))
        spool.finish()
    # Then
    assert _ids(read_spans(tmp_path)) == [1, 2]
    assert _ids(spool.table()) == [2]


def test_without_a_directory_all_stays_in_memory():
    """Nothing is lost when there is no place to write to."""
    spool = Spool(None, 2, Received())
    for number in range(1, 8):
        if spool.add(_batch(number)):
            spool.write_part()
    spool.finish()
    assert _ids(spool.table()) == [1, 2, 3, 4, 5, 6, 7]


def test_a_disk_that_recovers_loses_nothing_within_twice_the_bound(tmp_path):
    """While writing fails up to twice the bound is held; once it works again the spans are all there."""
    # Given
    blocker = tmp_path / "spans"
    blocker.write_text("in the way")
    received = Received()
    spool = Spool(blocker, 4, received)
    # When
    for number in range(1, 8):
        if spool.add(_batch(number)):
            spool.write_part()
    blocker.unlink()
    spool.finish()
    # Then
    assert _ids(read_spans(blocker)) == [1, 2, 3, 4, 5, 6, 7]
    assert received.lost == 0


def test_beyond_twice_the_bound_the_oldest_are_lost_and_said(tmp_path):
    """What no longer fits is lost from the oldest on, counted, and raised at the end with path and reason."""
    # Given
    blocker = tmp_path / "spans"
    blocker.write_text("in the way")
    received = Received()
    spool = Spool(blocker, 4, received)
    # When
    for number in range(1, 21):
        if spool.add(_batch(number)):
            spool.write_part()
    blocker.unlink()
    with pytest.raises(TraceError, match=rf"of 20 received spans are lost: cannot write .*{blocker}"):
        spool.finish()
    # Then
    kept = _ids(read_spans(blocker))
    assert kept == list(range(received.lost + 1, 21))
    assert 8 <= len(kept) <= 9


def test_adding_while_parts_are_written(tmp_path):
    """Two writers and a reader beside the adder: every span once, whoever was first."""
    # Given
    spool = Spool(tmp_path, 20, Received())
    done = threading.Event()
    seen = []

    def write():
        while not done.is_set():
            spool.write_part()
            done.wait(0.001)

    def read():
        while not done.is_set():
            seen.append(_ids(spool.table()))
            done.wait(0.001)

    threads = [threading.Thread(target=target) for target in (write, write, read)]
    for thread in threads:
        thread.start()
    # When
    try:
        for number in range(1, 1001):
            spool.add(_batch(number))
    finally:
        done.set()
        for thread in threads:
            thread.join()
    spool.finish()
    # Then
    assert _ids(read_spans(tmp_path)) == list(range(1, 1001))
    assert all(ids == list(range(1, len(ids) + 1)) for ids in seen)
