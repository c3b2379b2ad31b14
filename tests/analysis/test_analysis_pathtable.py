"""Tables of walked traces."""

from __future__ import annotations

import numpy as np
import pytest
from made_traces import cruel, nested

from perflab.analysis.criticalpath import critical_path
from perflab.analysis.pathtable import entity_table
from perflab.analysis.walk import ON_PATH
from perflab.testing import EPOCH_NS, S, spans, trace_id


class TestStretches:
    def test_a_path_is_a_walk_through_time(self):
        """Stretches follow each other without a hole, from the root's start to its end."""
        path = critical_path(nested()).path(trace_id(1))
        assert path["entity"].tolist() == [
            "order: POST /orders",
            "order -> stock",
            "stock: POST /reserve",
            "stock: SELECT stock",
            "stock: POST /reserve",
            "order -> stock",
            "order: POST /orders",
        ]
        assert ((path["start_ns"] - EPOCH_NS) / 1e6).tolist() == [0, 10, 15, 20, 50, 55, 60]
        assert (path["duration_ns"] / 1e6).tolist() == [10, 5, 5, 30, 5, 5, 40]

    @pytest.mark.parametrize("seed", range(5))
    def test_whatever_the_input_they_have_no_hole(self, seed):
        """Each begins where the one before ended."""
        path = critical_path(cruel(seed))
        for trace in path.entries["trace_id"].unique():
            found = path.path(trace)
            roots = (path.entries["trace_id"] == trace).sum()
            ends = (found["start_ns"] + found["duration_ns"]).to_numpy()
            assert (found["start_ns"].to_numpy()[1:] != ends[:-1]).sum() <= roots - 1


class TestEntityTable:
    def test_percentiles_are_of_calls_and_exemplars_of_traces(self):
        """Four calls of 1 to 4 ms in two traces, the second with most."""
        first = [S("a", "q", 1, 2, "client"), S("a", "q", 3, 5, "client")]
        second = [S("a", "q", 1, 4, "client"), S("a", "q", 5, 9, "client")]
        path = critical_path(
            spans([S("a", "top", 0, 10, children=first), S("a", "top", 0, 10, children=second)])
        )
        row = path.table.set_index("entity").loc["a: q"]
        assert (row["calls"], row["requests"], row["exclusive_ns"]) == (4, 2, 10_000_000)
        assert (row["mean_ms"], row["p50_ms"], row["p95_ms"]) == (2.5, 2, 4)
        assert row["exemplar_trace_ids"] == [trace_id(2), trace_id(1)]

    def test_some_requests_only(self):
        """A mask over requests in order of time."""
        path = critical_path(spans([S("a", "x", 0, 10), S("a", "y", 5, 10)]))
        table = entity_table(path.walked, ON_PATH, np.array([False, True]))
        assert table["entity"].tolist() == ["a: y"]
