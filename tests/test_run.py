"""Runs: what is written is read, also after a crash half way."""

import json
import re

import pandas as pd
import pytest

from perflab.errors import ConfigError, PerflabError, SpanFormatError
from perflab.run import FORMAT_VERSION, Run, list_runs
from perflab.testing import random_forest
from perflab.trace.store import sort_spans, write_spans


def test_a_new_run_is_unfinished_and_empty(tmp_path):
    """Its directory is there, named by time and label, with a run.json and nothing else to tell."""
    # When
    run = Run.create(tmp_path / "runs", label="shop")
    # Then
    assert re.fullmatch(r"\d{8}T\d{6}-shop-[0-9a-f]{4}", run.run_id)
    assert run.info == {"format_version": FORMAT_VERSION, "run": run.run_id}
    assert (run.verdict, run.events, run.isolation) == ("unfinished", [], {})
    assert len(run.spans) == 0
    assert str(run.path) in repr(run)


def test_what_is_written_is_read(tmp_path):
    """Information, proof of isolation, events and spans come back from another `Run` of the same place."""
    # Given
    run = Run.create(tmp_path)
    table = random_forest(1)
    # When
    run.write_info({"verdict": "passed", "customer": "支付"})
    run.write_isolation({"stores": 2})
    run.event("started", rate_per_s=5)
    run.event("stopped", path=tmp_path)
    write_spans(table, run.path / "spans" / "a.parquet")
    # Then
    found = Run.open(run.run_id, tmp_path)
    assert (found.verdict, found.info["customer"], found.info["run"]) == ("passed", "支付", run.run_id)
    assert found.isolation == {"format_version": FORMAT_VERSION, "stores": 2}
    assert [event["event"] for event in found.events] == ["started", "stopped"]
    assert found.events[0]["rate_per_s"] == 5
    assert found.events[0]["time_ns"] <= found.events[1]["time_ns"]
    assert found.spans is found.spans
    pd.testing.assert_series_equal(found.spans["span_id"], sort_spans(table)["span_id"])
    assert sorted(item.name for item in run.path.iterdir()) == [
        "events.jsonl",
        "isolation.json",
        "run.json",
        "spans",
    ]


def test_runs_are_opened_by_path_id_or_latest(tmp_path):
    """All three lead to the same run; the list is oldest first."""
    # Given
    for name in ("20250101T000000-a-0000", "20260101T000000-b-0000", "20240101T000000-c-0000"):
        (tmp_path / name).mkdir()
        Run(tmp_path / name).write_info({})
    (tmp_path / "something else").mkdir()
    # Then
    assert [run.run_id[:4] for run in list_runs(tmp_path)] == ["2024", "2025", "2026"]
    assert Run.open("latest", tmp_path).run_id == "20260101T000000-b-0000"
    assert Run.open("20250101T000000-a-0000", tmp_path).path == tmp_path / "20250101T000000-a-0000"
    assert Run.open(tmp_path / "20250101T000000-a-0000").run_id == "20250101T000000-a-0000"


def test_a_run_that_is_not_there(tmp_path):
    """The message names what was asked and lists the newest there are."""
    with pytest.raises(ConfigError, match=r"no run in .*'perflab demo' makes one"):
        Run.open("latest", tmp_path)
    run = Run.create(tmp_path)
    with pytest.raises(ConfigError, match=rf"no run 'gone'; the newest in .* are: {run.run_id}"):
        Run.open("gone", tmp_path)
    with pytest.raises(ConfigError, match=r"no run '\.\./\.\./etc'"):
        Run.open("../../etc", tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"format_version": 99}', "has format 99; this perflab reads up to 1"),
        ("{}", "has format None"),
        ('{"format_ver', "cannot read"),
        ("[]", "holds list, not an object"),
        (b"\xff\xfe", "cannot read"),
    ],
)
def test_newer_half_written_and_foreign_runs_are_refused(tmp_path, content, words):
    """What this perflab cannot read is said with the file's path."""
    # Given
    run = Run.create(tmp_path)
    path = run.path / "run.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    # Then
    with pytest.raises(ConfigError, match=re.escape(words)) as caught:
        Run.open(run.path)
    assert "run.json" in str(caught.value)


def test_a_line_cut_short_is_left_out(tmp_path):
    """After a crash the events that were written whole are there, whatever half a line follows."""
    # Given
    run = Run.create(tmp_path)
    run.event("one")
    run.event("two")
    path = run.path / "events.jsonl"
    whole = path.read_bytes()
    # Then
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        names = [event["event"] for event in run.events]
        assert names in ([], ["one"], ["one", "two"])
    path.write_bytes(whole[:-10])
    assert [event["event"] for event in run.events] == ["one"]


def test_lines_that_are_no_events_are_left_out(tmp_path):
    """Text cut inside a character, blank lines, and JSON that is no object do not hide the others."""
    run = Run.create(tmp_path)
    run.event("one", name="支")
    path = run.path / "events.jsonl"
    path.write_bytes("支".encode()[:2] + b"\n\n5\n" + path.read_bytes())
    assert [event["event"] for event in run.events] == ["one"]


def test_events_after_a_cut_line_are_kept(tmp_path):
    """An event appended after half a line starts on a line of its own."""
    run = Run.create(tmp_path)
    run.event("one")
    path = run.path / "events.jsonl"
    path.write_bytes(path.read_bytes() + b'{"time_ns": 1, "ev')
    run.event("two")
    assert [event["event"] for event in run.events] == ["one", "two"]


def test_text_with_line_separators_stays_one_event(tmp_path):
    """What Unicode calls a line end inside a text does not cut the event."""
    run = Run.create(tmp_path)
    run.event("one", text="a\nb\u2028c\x85d")
    assert run.events[0]["text"] == "a\nb\u2028c\x85d"


def test_a_place_that_cannot_be_written(tmp_path):
    """The error names the directory."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PerflabError, match="cannot write the run's directory"):
        Run.create(tmp_path / "file")


def test_spans_of_a_run_that_lost_them(tmp_path):
    """A half-written file of spans is named, not read as fewer spans."""
    run = Run.create(tmp_path)
    (run.path / "spans" / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(SpanFormatError, match=r"a\.parquet"):
        _ = run.spans


def test_run_json_is_replaced_in_one_step(tmp_path):
    """What is in run.json is always whole; nothing is left aside."""
    run = Run.create(tmp_path)
    for number in range(20):
        run.write_info({"number": number})
        assert json.loads((run.path / "run.json").read_text(encoding="utf-8"))["number"] == number
    assert sorted(item.name for item in run.path.iterdir()) == ["run.json", "spans"]
