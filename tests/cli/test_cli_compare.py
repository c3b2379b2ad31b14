"""perflab compare: the same answer as the library's, and an exit code that a pipeline can stand on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from perflab.analysis.compare import compare
from perflab.cli import main
from perflab.run import Run
from perflab.testing import S, spans
from perflab.trace.store import read_spans, write_spans

ENTITY = "stock: SELECT stock"
ROWS = {"rows": "table", "latency": "latency", "structure": "structure"}


def write_run(root: Path, label: str, queries_ms: float, seed: int, size: int = 150) -> Run:
    """Return a run whose requests spend most of their time in one statement."""
    took = (queries_ms * np.random.default_rng(seed).lognormal(0, 0.1, size)).tolist()
    trees = []
    for number, ms in enumerate(took):
        at = 100 * number
        query = S("stock", "SELECT stock", at + 1, at + 1 + ms, "client")
        trees.append(S("stock", "GET /", at, at + 2 + ms, "server", children=[query]))
    made = Run.create(root / "data/runs", label=label)
    write_spans(spans(trees), made.path / "spans" / "part-0.parquet")
    return made


@pytest.fixture
def before(tmp_path: Path) -> Run:
    """Return a run whose statement takes 20 ms."""
    return write_run(tmp_path, "before", 20, 1)


@pytest.fixture
def after(tmp_path: Path) -> Run:
    """Return a run whose statement takes 30 ms."""
    return write_run(tmp_path, "after", 30, 2)


def test_what_changed_is_told(perflab, before: Run, after: Run):
    """Without --json: a sentence, the rows, latency and counts; without a gate the exit code is 0."""
    done = perflab("compare", before.run_id, after.run_id)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == compare(before.spans, after.spans).sentence
    assert lines[2].split()[:2] == ["entry", "entity"]
    assert ENTITY in lines[3]
    assert lines[3].endswith("worse")
    assert "Latency and errors:" in lines
    assert lines[-2:] == [
        f"{side}: traces 150, requests 150, spans 300, roots 150" for side in ("before", "after")
    ]


def test_json_gives_the_rows_of_the_library(perflab, before: Run, after: Run):
    """--json holds every row and column of the library's tables, and what became of the gates."""
    # Given the library's answer
    expected = compare(read_spans(before.path), read_spans(after.path))
    # When the same runs are asked by directory and by file
    done = perflab(
        "compare", before.path, after.path / "spans" / "part-0.parquet", "--json", "--fail-on", "p50 > 5%"
    )
    # Then rows, columns and numbers are the same
    assert done.returncode == 1, done.stderr
    answer = json.loads(done.stdout)
    assert set(answer) == {"answer", "sentence", "counts", "refused", "gates", *ROWS}
    assert (answer["answer"], answer["sentence"]) == ("worse", expected.sentence)
    for key, name in ROWS.items():
        table = getattr(expected, name)
        plain = json.loads(table.to_json(orient="records", double_precision=15))
        assert [list(row) for row in answer[key]] == [list(table.columns)] * len(table)
        for row, wanted in zip(answer[key], plain, strict=True):
            assert row == pytest.approx(wanted)
    assert [gate["outcome"] for gate in answer["gates"]] == ["failed"]
    assert answer["counts"]["after"]["requests"] == 150


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["p50 > 5%"], 1, "failed: p50 > 5%"),
        (["p50 > 100%"], 0, "passed: p50 > 100%"),
        (["p50 > 100%", "mean > 25ms"], 1, "passed: p50 > 100%"),
        ([f"exclusive:{ENTITY} @ stock: GET / > +5ms"], 1, "the whole interval is above +5 ms"),
        ([f"share:{ENTITY} > 99%"], 0, "passed: share:"),
        (["errors > 0.01"], 0, "not certain: errors > 0.01"),
        (["p999 > 5%"], 3, "too few requests: 150 before and 150 after, p999 needs 3,688 of each"),
        (["p999 > 5%", "p50 > 5%"], 1, "cannot say: p999 > 5%"),
    ],
)
def test_gates_decide_the_exit_code(
    before: Run,
    after: Run,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    told: str,
):
    """1 if one failed for certain, 3 if one could not be judged; why is printed."""
    monkeypatch.chdir(tmp_path)
    gates = [part for gate in words for part in ("--fail-on", gate)]
    assert main(["compare", before.run_id, after.run_id, *gates]) == code
    assert told in capsys.readouterr().out


def test_strict_takes_the_estimate(perflab, tmp_path: Path):
    """A change that may be chance fails only if asked to."""
    one, other = write_run(tmp_path, "one", 20, 3, 40), write_run(tmp_path, "other", 20.4, 8, 40)
    words = ("compare", one.run_id, other.run_id, "--fail-on", "mean > 0.1%")
    ratio = compare(one.spans, other.spans).measure("mean").change()
    assert ratio.low < 0.001 < ratio.estimate
    done = perflab(*words)
    assert (done.returncode, "not certain: mean > 0.1%" in done.stdout) == (0, True)
    done = perflab(*words, "--strict")
    assert (done.returncode, "(strict)" in done.stdout) == (1, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--fail-on", "p98 > 5%"], "there is no metric 'p98'; there are p50"),
        (["--fail-on", "p99 > fast"], "'fast' is no value for p99; write '5%'"),
        (["--fail-on", "p99"], "'p99' is not a gate; write METRIC"),
        (["--fail-on", "share:cart > 5%"], f"'cart' is on no critical path; there are '{ENTITY}'"),
        (["--fail-on", "p99 @ pay > 5%"], "no requests of 'pay'; there are 'all', 'stock: GET /'"),
        (["--top", "0"], "--top 0 shows nothing"),
        (["--runs", "else"], "the newest in else are: none"),
    ],
)
def test_wrong_input_exits_2(perflab, before: Run, words: list[str], said: str):
    """What is no gate, or is not there, is told with what there is."""
    done = perflab("compare", before.run_id, "latest", *words)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert done.stdout == ""
