"""The analysis against a walk of the same rule in plain Python, in one session: a ratio of CPU time."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from perflab.analysis.criticalpath import critical_path
from perflab.testing import random_forest
from perflab.trace.schema import SPAN_COLUMNS

sys.path.append(str(Path(__file__).parents[1] / "analysis"))

AT_LEAST = 15.0
"""Reached: about 35 on a quiet machine; see docs/analysis.md."""


def repeated(table: pd.DataFrame, times: int) -> pd.DataFrame:
    """Return a table several times below itself, as other traces."""
    traces = table["trace_id"].array
    known = len(traces.categories)
    names = pd.Index([f"{number:032x}" for number in range(1, known * times + 1)], dtype="str")
    codes = np.concatenate([traces.codes.astype(np.int64) + known * at for at in range(times)])
    columns = {name: pd.concat([table[name]] * times, ignore_index=True) for name in SPAN_COLUMNS}
    columns["trace_id"] = pd.Series(pd.Categorical.from_codes(codes, categories=names))
    columns["start_ns"] = columns["start_ns"] + np.repeat(np.arange(times), len(table)) * 10**10
    return pd.DataFrame(columns)


def cpu_per_span(work: Callable[[pd.DataFrame], object], table: pd.DataFrame) -> float:
    began = time.process_time()
    work(table)
    return (time.process_time() - began) / len(table)


def test_the_compiled_walk_against_plain_python(capsys: pytest.CaptureFixture[str]):
    """From the same span table: exclusive times per trace and entity there, all tables of the result here."""
    from naive_walk import naive_exclusive

    few = random_forest(1, traces=300)
    many = repeated(few, 40)
    critical_path(few)  # what was compiled is loaded
    ratios = [cpu_per_span(naive_exclusive, few) / cpu_per_span(critical_path, many) for _ in range(3)]
    with capsys.disabled():
        print(
            f" plain Python / compiled, CPU per span: {', '.join(f'{ratio:.0f}' for ratio in ratios)} ",
            end="",
        )
    assert statistics.median(ratios) >= AT_LEAST
