"""perflab runs: the list of runs, also of those that are half written."""

from __future__ import annotations

import json
from pathlib import Path

from perflab.run import Run


def test_no_run_is_said(perflab):
    """An empty folder is an answer, and says what to do next."""
    done = perflab("runs")
    assert (done.returncode, done.stdout) == (0, "there is no run in data/runs; 'perflab demo' makes one\n")
    assert json.loads(perflab("runs", "--json").stdout) == []


def test_runs_are_listed_with_verdict_and_bottleneck(perflab, tmp_path: Path):
    """A finished run and one that was cut off are told apart."""
    # Given a finished run, one that only began, and one whose file is cut short
    folder = tmp_path / "data/runs"
    for name in ("1", "2", "3"):
        (folder / name).mkdir(parents=True)
    Run(folder / "1").write_info(
        {"verdict": "passed", "requests": {"sent": 1200}, "bottleneck": {"entity": "stock: SELECT stock"}}
    )
    Run(folder / "2").write_info({"bottleneck": None})
    (folder / "3/run.json").write_text('{"format_ver', encoding="utf-8")
    # When they are listed
    done = perflab("runs")
    # Then each has its row
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[:3] for line in lines[:3]] == [
        ["run", "verdict", "requests"],
        ["1", "passed", "1200"],
        ["2", "unfinished", "-"],
    ]
    assert lines[1].endswith("stock: SELECT stock")
    assert lines[3].startswith("3    unreadable")


def test_json_gives_the_same_runs(perflab, tmp_path: Path):
    """``--json`` is one array, oldest first, and ``--runs`` looks elsewhere."""
    # Given two runs in another folder
    for name in ("b", "a"):
        (tmp_path / "else" / name).mkdir(parents=True)
        Run(tmp_path / "else" / name).write_info(
            {"verdict": "stopped", "isolation": {"stores": 2, "proven": 2}}
        )
    # When they are listed as JSON
    done = perflab("runs", "--runs", "else", "--json")
    # Then the rows are there, ordered by name
    assert json.loads(done.stdout) == [
        {"run": n, "path": f"else/{n}", "verdict": "stopped", "isolation": {"stores": 2, "proven": 2}}
        for n in ("a", "b")
    ]
