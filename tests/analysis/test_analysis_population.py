"""Which traces count, and what is asynchronous by its links."""

from __future__ import annotations

import pytest

from perflab.analysis.population import find_linked, is_answered, take_population
from perflab.testing import S, spans, trace_id
from perflab.trace.tree import link


def taken(table):
    return take_population(table, link(table))


class TestTakePopulation:
    def test_roots_that_were_answered(self):
        """Children go with their root; orphans go with nobody."""
        top = S("a", "top", 0, 9, trace=1, children=[S("a", "child", 1, 2)])
        table = spans([top, S("a", "lost", 1, 2, trace=1, parent_span_id=99)])
        assert taken(table).is_taken.tolist() == [True, True, False]
        assert taken(table).is_root.tolist() == [True, False, False]

    def test_one_marked_span_marks_its_trace(self):
        """And unmarked traces are left out, counted."""
        table = spans([S("a", "x", 0, 9, children=[S("a", "y", 1, 2, shadow=True)]), S("b", "z", 0, 9)])
        found = taken(table)
        assert found.is_taken.tolist() == [True, True, False]
        assert found.real_traces_left_out == 1

    def test_real_traces_alone_are_taken(self):
        """Nothing is left out where nothing is mixed."""
        found = taken(spans([S("a", "x", 0, 9)]))
        assert (found.is_root.tolist(), found.real_traces_left_out) == ([True], 0)

    @pytest.mark.parametrize(
        ("outcome", "answered"),
        [
            ("answered", True),
            ("check_failed", True),
            ("", True),
            ("timeout", False),
            ("missed", False),
            ("reset", False),
        ],
    )
    def test_what_an_answer_is(self, outcome, answered):
        """A wrong answer is one; anything unheard of is none."""
        table = spans([S("perflab", "x", 0, 9, "client", outcome=outcome)])
        assert is_answered(table).tolist() == [answered]
        assert taken(table).unanswered == (not answered)


class TestFindLinked:
    @pytest.mark.parametrize(
        ("links", "linked"),
        [
            ([{"trace_id": trace_id(1), "span_id": f"{1:016x}"}], True),
            ([{"traceId": trace_id(1), "spanId": "1"}], True),
            ([{"trace_id": trace_id(1), "span_id": 1}], True),
            ([{"trace_id": trace_id(1), "span_id": "2"}], False),
            ([{"trace_id": trace_id(1), "span_id": "no hex"}], False),
            ([{}], False),
        ],
    )
    def test_a_child_tied_to_its_parent(self, links, linked):
        """However the link is written; what cannot be read ties nothing."""
        table = spans([S("a", "top", 0, 9, children=[S("a", "child", 1, 2, links=links)])])
        assert find_linked(table, link(table)).tolist() == [False, linked]

    @pytest.mark.parametrize("text", ["[", "7", '["x"]'])
    def test_links_that_are_none(self, text):
        """Broken JSON, or JSON of another form."""
        table = spans([S("a", "top", 0, 9)]).assign(links=text)
        assert find_linked(table, link(table)).tolist() == [False]
