"""Folded stacks for flame charts."""

from __future__ import annotations

from made_traces import nested

from perflab.analysis.criticalpath import critical_path
from perflab.testing import S, spans


class TestStacks:
    def test_stacks_hold_all_the_time_there_is(self):
        """Folded, root first, with the names of every other table."""
        stacks = critical_path(nested()).stacks.set_index("stack")["exclusive_ns"] / 1e6
        assert stacks.to_dict() == {
            "order: POST /orders": 50,
            "order: POST /orders;order -> stock": 10,
            "order: POST /orders;order -> stock;stock: POST /reserve": 10,
            "order: POST /orders;order -> stock;stock: POST /reserve;stock: SELECT stock": 30,
        }

    def test_traces_counts_requests_not_calls(self):
        """Two calls in one trace are one."""
        calls = [S("a", "q", 1, 2), S("a", "q", 3, 4)]
        stacks = critical_path(spans([S("a", "top", 0, 9, children=calls), S("a", "top", 0, 9)])).stacks
        assert stacks.set_index("stack")["traces"].to_dict() == {"a: top": 2, "a: top;a: q": 1}

    def test_a_semicolon_in_a_name_is_no_frame(self):
        """It is written as a comma."""
        assert critical_path(spans([S("a", "x;y", 0, 9)])).stacks["stack"].tolist() == ["a: x,y"]
