"""The analysis against a walk of the same rule in plain Python, in one session: a ratio of CPU time."""

from __future__ import annotations

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

ALL_TABLES_AT_LEAST = 15.0
ALONE_AT_LEAST = 30.0
"""Reached: see docs/analysis.md."""


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


def least_of_three(work: Callable[[pd.DataFrame], object], table: pd.DataFrame) -> float:
    """Return the CPU time per span of the run that was disturbed least."""
    return min(cpu_per_span(work, table) for _ in range(3))


def analysis_alone(table: pd.DataFrame) -> pd.DataFrame:
    """Return what the plain walk returns: from the span table to exclusive times per trace and entity."""
    return critical_path(table).exclusive


def all_tables(table: pd.DataFrame) -> tuple[pd.DataFrame, ...]:
    """Return every table of the result: percentiles, exemplars and asynchronous work, too."""
    path = critical_path(table)
    return path.table, path.entries, path.exclusive, path.asynchronous


def test_the_compiled_walk_against_plain_python(capsys: pytest.CaptureFixture[str]):
    """From the same spans; once to the same product, once to all tables, which plain Python does not make."""
    from naive_walk import naive_exclusive

    few = random_forest(1, traces=300)
    many = repeated(few, 40)
    all_tables(few)  # what was compiled is loaded
    plain = least_of_three(naive_exclusive, few)
    alone = plain / least_of_three(analysis_alone, many)
    whole = plain / least_of_three(all_tables, many)
    with capsys.disabled():
        print(f" plain Python / compiled, CPU per span: alone {alone:.0f}, all tables {whole:.0f} ", end="")
    assert alone >= ALONE_AT_LEAST
    assert whole >= ALL_TABLES_AT_LEAST


def test_both_make_the_same_product():
    """Or the ratio would compare two different things."""
    from naive_walk import naive_exclusive

    table = random_forest(1, traces=300)
    sums = analysis_alone(table).groupby(["trace_id", "entity"], observed=True)["exclusive_ns"].sum()
    assert {(str(trace), str(entity)): int(ns) for (trace, entity), ns in sums.items()} == naive_exclusive(
        table
    )
