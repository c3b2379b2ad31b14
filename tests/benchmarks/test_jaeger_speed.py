"""From Jaeger's JSON to a table per operation, against plain Python with json.load: a ratio."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from perflab.analysis.criticalpath import critical_path
from perflab.testing import random_forest
from perflab.trace.store import read_spans

for _room in ("analysis", "trace"):
    sys.path.append(str(Path(__file__).parents[1] / _room))

AT_LEAST = 2.5
"""Below what is reached on a busy machine; see docs/analysis.md."""


def cpu_s(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def test_a_file_of_jaegers_against_json_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The same file, the same rule of the walk, exclusive times per entity on both sides."""
    from jaeger_writer import read_plainly, to_jaeger, to_microseconds, with_tags
    from naive_walk import naive_exclusive

    table = with_tags(to_microseconds(random_forest(1, traces=1500)), 1)
    path = tmp_path / "traces.json"
    path.write_text(json.dumps(to_jaeger(table, with_logs=True)))
    critical_path(read_spans(path))  # what was compiled is loaded
    ratios = [
        cpu_s(lambda: naive_exclusive(read_plainly(path)))
        / cpu_s(lambda: critical_path(read_spans(path)).table)
        for _ in range(3)
    ]
    with capsys.disabled():
        print(
            f" json.load and plain Python / perflab, CPU: {', '.join(f'{one:.1f}' for one in ratios)} ",
            end="",
        )
    assert statistics.median(ratios) >= AT_LEAST
