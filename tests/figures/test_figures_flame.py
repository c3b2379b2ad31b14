"""The critical path as a flame chart."""

import random

import pytest

from perflab.analysis.criticalpath import critical_path
from perflab.figures import flame
from perflab.figures.flame import MAX_FRAMES
from perflab.testing import S, random_forest, spans


def frames(figure):
    """Return ``(row, left, width, hover)`` of every frame, in percent."""
    return [
        (y, base, x, hover)
        for trace in figure.data
        for y, base, x, hover in zip(trace.y, trace.base, trace.x, trace.hovertext, strict=True)
    ]


def test_widths_are_shares_of_the_critical_time():
    """By hand: of 100 ms, 60 are the query's; it lies under the handler, which is all of it."""
    # Given
    query = S("stock", "SELECT stock", 20, 80, kind="client")
    table = spans([S("stock", "GET /stock", 0, 100, kind="server", children=[query])])
    # When
    drawn = frames(flame(critical_path(table)))
    # Then
    assert [(row, left, width) for row, left, width, _ in drawn] == [(0, 0, 100), (1, 0, 60)]
    assert "its own: 40 %, 40 ms a request" in drawn[0][3]
    assert "its own: 60 %, 60 ms a request" in drawn[1][3]


@pytest.mark.parametrize("seed", range(6))
def test_no_frame_sticks_out_of_the_row_above(seed):
    """Frames of a row never overlap, and each lies within one frame of the row above it."""
    # Given
    found = critical_path(random_forest(random.Random(seed), traces=20))
    # When
    drawn = sorted((row, left, left + width) for row, left, width, _ in frames(flame(found)))
    # Then
    for row, left, right in drawn:
        above = [(low, high) for upper, low, high in drawn if upper == row - 1]
        beside = [(low, high) for same, low, high in drawn if same == row and (low, high) != (left, right)]
        assert row == 0 or any(low - 1e-6 <= left and right <= high + 1e-6 for low, high in above)
        assert all(high <= left + 1e-6 or right <= low + 1e-6 for low, high in beside)


def test_frames_too_small_to_see_are_left_out_and_their_time_is_told():
    """3,000 operations of 0.02 % each: none is drawn, and the description says how much that is."""
    # Given
    children = [S("s", f"op {number}", number, number + 1) for number in range(3000)]
    table = spans([S("s", "GET /", 0, 5000, kind="server", children=children)])
    # When
    figure = flame(critical_path(table))
    # Then
    assert len(frames(figure)) == 1
    assert "60 %" in figure.layout.meta["description"]
    assert len(frames(figure)) <= MAX_FRAMES


def test_edges_are_told_from_operations():
    """An edge is hatched and in the legend as time between services."""
    # Given
    server = S("b", "GET /", 2, 8, kind="server")
    call = S("a", "GET b", 1, 9, kind="client", children=[server])
    # When
    figure = flame(critical_path(spans([S("a", "GET /", 0, 10, kind="server", children=[call])])))
    # Then
    (edge,) = [trace for trace in figure.data if trace.name == "between services"]
    assert edge.marker.pattern.shape == "/"
    assert edge.hovertext[0].startswith("<b>a -&gt; b</b>")


def test_no_trace_is_said_in_words():
    """Without a trace the figure explains itself."""
    # When
    figure = flame(critical_path(spans([])))
    # Then
    assert "no complete trace" in figure.layout.meta["description"]


def test_names_from_a_trace_stay_text():
    """Markup in a name is shown, not interpreted."""
    # When
    figure = flame(critical_path(spans([S("<b>s", "<a href='x'>n", 0, 10, kind="server")])))
    # Then
    assert "<a " not in figure.to_json().replace("\\u003c", "<")
