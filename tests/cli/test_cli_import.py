"""perflab import: traces of other systems into a span table."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from perflab.testing import random_forest
from perflab.trace.store import read_spans

sys.path.append(str(Path(__file__).parents[1] / "trace"))
from jaeger_writer import to_jaeger, to_microseconds


@pytest.fixture
def answer(tmp_path: Path) -> Path:
    """Return a folder with a file of Jaeger's."""
    (tmp_path / "jaeger").mkdir()
    content = to_jaeger(to_microseconds(random_forest(1, traces=60)))
    del content["data"][0]["spans"][0]["spanID"]
    (tmp_path / "jaeger/traces.json").write_text(json.dumps(content))
    return tmp_path / "jaeger"


def test_a_table_is_written_and_what_was_refused_is_said(perflab, answer: Path, tmp_path: Path):
    """Once in words and once as JSON; analysing either gives the same."""
    done = perflab("import", str(answer), "--out", str(tmp_path / "spans.parquet"))
    assert done.returncode == 0, done.stderr
    table = read_spans(tmp_path / "spans.parquet")
    assert f"spans.parquet: {len(table):,} spans of 60 traces" in done.stdout
    assert "traces.json: data[0].spans[0]: span id None" in done.stdout
    told = json.loads(perflab("import", str(answer), "--out", str(tmp_path / "b.parquet"), "--json").stdout)
    assert told["counts"]["spans"] == len(table)
    assert (told["files"], told["counts"]["refused"], len(told["refused"])) == (1, 1, 1)
    rows = [
        json.loads(perflab("analyse", str(path), "--json").stdout)["rows"]
        for path in (answer, tmp_path / "spans.parquet")
    ]
    assert rows[0] == rows[1]
    assert rows[0]


def test_nothing_is_overwritten_and_nothing_is_found(perflab, answer: Path, tmp_path: Path):
    """Both are wrong input."""
    (tmp_path / "there.parquet").touch()
    done = perflab("import", str(answer), "--out", str(tmp_path / "there.parquet"))
    assert (done.returncode, "is there already" in done.stderr) == (2, True)
    (tmp_path / "empty").mkdir()
    done = perflab("import", str(tmp_path / "empty"), "--out", str(tmp_path / "a.parquet"))
    assert (done.returncode, "no files of traces" in done.stderr) == (2, True)
    assert not (tmp_path / "a.parquet").exists()
