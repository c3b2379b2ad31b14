"""Rows of a run."""

from __future__ import annotations

import json

import numpy as np
import pytest

from perflab.errors import LoadError
from perflab.load.egress import Address
from perflab.load.recording import CODES, Recording, rows_path, saved_spans
from perflab.trace.schema import check_spans

MS = 1_000_000


def recording_of(latencies_ms, late_ms=0):
    """Make a recording of answered requests, one due each second, and one more that was not begun."""
    size = len(latencies_ms)
    due = np.arange(size + 1, dtype=np.int64) * 1000 * MS
    recording = Recording(due, np.zeros(size + 1, dtype=np.int16), epoch_ns=5)
    for row, latency in enumerate(latencies_ms):
        recording.begun_ns[row] = due[row] + late_ms * MS
        recording.ended_ns[row] = due[row] + latency * MS
        recording.outcome[row] = CODES["answered"]
        recording.span[row] = row + 1
        recording.trace_low[row] = row + 1
    return recording


def save(recording, tmp_path, **more):
    path = tmp_path / "new" / "x.npz"
    more.setdefault("shadow", True)
    recording.save(path, [("a", "GET"), ("b", "POST")], [Address("h", 1), Address("::1", 2)], **more)
    return saved_spans(path)


def test_percentiles_are_nearest_ranks_from_due():
    """Of 1..1000 ms the p99 is 990; lateness is inside the latency; missed rows have none."""
    recording = recording_of(range(1, 1001), late_ms=1)
    recording.outcome[1000] = CODES["missed"]
    assert recording.timings() == {
        "p50_ms": 500.0,
        "p99_ms": 990.0,
        "p999_ms": 999.0,
        "max_ms": 1000.0,
        "lateness_p99_ms": 1.0,
    }
    assert recording.counts() == {"answered": 1000, "missed": 1}
    assert set(recording_of([]).timings().values()) == {0.0}


def test_rows_become_spans_with_all_they_have_to_say(tmp_path):
    """Whole columns and attributes, written by hand."""
    recording = recording_of([10, 20, 30])
    recording.first_ns[0] = recording.begun_ns[0] + 4
    recording.http_status[0], recording.body_bytes[0], recording.connect_ns[0] = 200, 7, 3
    recording.outcome[1] = CODES["check_failed"]
    recording.endpoint[1], recording.peer[1], recording.http_status[1] = 1, 1, 500
    recording.explain(1, "status 500")
    recording.outcome[2] = CODES["missed"]
    recording.explain(2, "in-flight bound reached")
    spans = check_spans(save(recording, tmp_path))
    # Given three rows begun and one not, Then there are three spans
    assert spans["trace_id"].tolist() == [f"{row:032x}" for row in (1, 2, 3)]
    assert spans["name"].tolist() == ["a", "b", "a"]
    assert spans["outcome"].tolist() == ["answered", "check_failed", "missed"]
    assert spans["status"].tolist() == ["unset", "error", "error"]
    assert spans["scheduled_ns"].tolist() == [5, 1000 * MS + 5, 2000 * MS + 5]
    assert spans["duration_ns"].tolist() == [10 * MS, 20 * MS, 30 * MS]
    assert set(spans["kind"]) == {"client"}
    first, second, third = (json.loads(text) for text in spans["attributes"])
    assert first == {
        "endpoint": "a",
        "http.request.method": "GET",
        "server.address": "h",
        "server.port": 1,
        "peer.service": "h:1",
        "late_ns": 0,
        "user_agent.synthetic.type": "test",
        "http.response.status_code": 200,
        "http.response.body.size": 7,
        "first_byte_ns": 4,
        "connect_ns": 3,
    }
    assert (second["substituted_for"], second["peer.service"]) == ("a", "[::1]:2")
    assert (second["error.type"], second["reason"]) == ("check_failed", "status 500")
    assert (third["error.type"], third["reason"]) == ("missed", "in-flight bound reached")
    assert recording.missed_reasons() == {"in-flight bound reached": 1}


def test_runs_without_marks_and_without_rows(tmp_path):
    """No mark, no shadow; no request, an empty table."""
    plain = save(recording_of([1]), tmp_path, shadow=False)
    assert not plain["shadow"].any()
    assert "synthetic" not in plain["attributes"].iloc[0]
    assert len(check_spans(save(recording_of([]), tmp_path))) == 0


def test_reasons_are_bounded():
    """A target that invents a new error each time cannot fill the memory."""
    recording = recording_of([1] * 3000)
    for row in range(3000):
        recording.explain(row, f"reason {row}")
    assert recording.reason_text(5) == "reason 5"
    assert recording.reason_text(2999) == "other"


def test_files_that_are_no_rows_are_told(tmp_path):
    """Missing or broken, the path is named."""
    broken = rows_path(tmp_path / "generator.parquet")
    assert broken.name == "generator.rows.npz"
    with pytest.raises(LoadError, match=r"generator\.rows\.npz"):
        saved_spans(broken)
    broken.write_bytes(b"PK no zip")
    with pytest.raises(LoadError, match="cannot read"):
        saved_spans(broken)
