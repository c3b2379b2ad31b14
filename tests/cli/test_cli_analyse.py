"""perflab analyse: the same answer as the library's, from a run, a folder or a file."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from perflab.analysis.bottleneck import bottlenecks
from perflab.run import Run
from perflab.testing import S, spans
from perflab.trace.store import read_spans, write_spans

TRACES = 200


@pytest.fixture
def table() -> pd.DataFrame:
    """Return requests of 100 ms and somewhat more, all but 20 ms of it in one stock query."""
    return spans(
        [
            S(
                "gateway",
                "POST /orders",
                150 * number,
                150 * number + 100 + number % 7,
                kind="server",
                children=[
                    S(
                        "gateway",
                        "SELECT stock",
                        150 * number + 10,
                        150 * number + 90 + number % 7,
                        kind="client",
                    )
                ],
            )
            for number in range(TRACES)
        ]
    )


@pytest.fixture
def run(table: pd.DataFrame, tmp_path: Path) -> Run:
    """Return a run under ``data/runs`` that holds the table."""
    made = Run.create(tmp_path / "data/runs", label="test")
    write_spans(table, made.path / "spans" / "part-0.parquet")
    return made


def test_the_table_names_the_bottleneck(perflab, run: Run):
    """Without --json: a sentence, then the rows worst first, then what was counted."""
    done = perflab("analyse", "latest")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == bottlenecks(run.spans).sentence
    assert lines[2].split()[:2] == ["rank", "entity"]
    assert "gateway: SELECT stock" in lines[3]
    assert f"traces {TRACES}" in lines[-1]


def test_json_gives_the_rows_of_the_library(perflab, run: Run):
    """--json holds every row and column of ``bottlenecks(spans).table``."""
    # Given the library's answer
    expected = bottlenecks(read_spans(run.path))
    # When the same run is asked by its id
    done = perflab("analyse", run.run_id, "--json")
    # Then rows, columns and numbers are the same
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert set(answer) == {"answer", "sentence", "first", "counts", "refused", "rows", "differences"}
    assert (answer["answer"], answer["sentence"]) == (expected.answer, expected.sentence)
    assert [row["entity"] for row in answer["rows"]] == list(expected.table["entity"])
    for column in expected.table.columns:
        assert [row[column] for row in answer["rows"]] == _as_json(expected.table[column])


def test_a_run_its_folder_and_its_file_say_the_same(perflab, run: Run):
    """An id, 'latest', the run's directory, a folder of spans and one file are five names of one table."""
    file = run.path / "spans" / "part-0.parquet"
    answers = {
        perflab("analyse", name, "--json").stdout
        for name in (run.run_id, "latest", run.path, file.parent, file)
    }
    assert len(answers) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "no run 'nowhere'; the newest in data/runs are:"),
        (["latest", "--top", "0"], "--top 0 shows nothing"),
        (["latest", "--runs", "else"], "there is no run in else"),
        (["text.parquet"], "text.parquet"),
    ],
)
def test_wrong_input_exits_2(perflab, run: Run, tmp_path: Path, words: list[str], said: str):
    """What is no run and no file of spans is told, with what there is."""
    (tmp_path / "text.parquet").write_text("this is no Parquet file", encoding="utf-8")
    done = perflab("analyse", *words)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert done.stdout == ""


def _as_json(column: pd.Series) -> list[object]:
    plain = [item.tolist() if hasattr(item, "tolist") else item for item in column]
    return json.loads(json.dumps([None if item != item else item for item in plain], default=list))


def test_a_table_too_large_for_memory_is_read_part_by_part(perflab, run: Run):
    """The same rows, progress on standard error, and what is a sample is said to be one."""
    whole = json.loads(perflab("analyse", "latest", "--json").stdout)
    done = perflab("analyse", "latest", "--json", "--at-once", "100")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    exact = ("rank", "entity", "calls", "exclusive_ns", "gain_ms", "pattern", "advice")
    assert [[row[name] for name in exact] for row in found["rows"]] == [
        [row[name] for name in exact] for row in whole["rows"]
    ]
    assert (found["first"], found["counts"]) == (whole["first"], whole["counts"])
    assert set(found["rows"][0]) == set(whole["rows"][0])
    assert f"{2 * TRACES:,} of {2 * TRACES:,} spans" in done.stderr


def test_a_large_table_and_its_baseline_are_sampled(perflab, run: Run):
    """And the answer says so."""
    done = perflab("analyse", "latest", "--baseline", "latest", "--at-once", "100")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("left out: latest: a sample of 400 of 400 spans") == 2


def test_nothing_at_once_is_wrong_input(perflab, run: Run):
    """A bound below one span."""
    done = perflab("analyse", "latest", "--at-once", "0")
    assert (done.returncode, "--at-once 0 reads nothing" in done.stderr) == (2, True)


@pytest.mark.parametrize("cohort", ["fast", "unloaded"])
def test_cohorts_of_one_run(perflab, run: Run, cohort: str):
    """In place of a baseline; the answer says how they were chosen."""
    done = perflab("analyse", "latest", "--baseline", cohort, "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["refused"][0].startswith("cohorts: the ")
    expected = bottlenecks(run.spans, baseline=cohort)
    assert [row["entity"] for row in answer["rows"]] == list(expected.table["entity"])
