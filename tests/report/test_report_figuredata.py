"""Figures as they travel in a page."""

import json

import plotly.graph_objects as go
import pytest

from perflab.report.figuredata import Figure, read_figure


def data_of(figure):
    """Return a plotly figure as a notebook holds it."""
    return json.loads(figure.to_json())


def test_a_figure_travels_whole():
    """Data and layout come back as they went in, with height and description beside them."""
    # Given
    figure = go.Figure(go.Bar(x=[1, 2], y=[3, 4]), {"height": 300, "meta": {"description": "Two bars."}})
    # When
    read = read_figure(data_of(figure), 4)
    # Then
    assert isinstance(read, Figure)
    assert (read.number, read.height, read.description) == (4, 300, "Two bars.")
    assert json.loads(str(read.json)) == {key: data_of(figure)[key] for key in ("data", "layout")}


def test_json_cannot_leave_its_script_element():
    """No character that ends an element or begins markup is in it."""
    # Given
    figure = go.Figure(go.Bar(x=[1], name="</script><script>alert(1)</script>&\u2028"))
    # When
    text = str(read_figure(data_of(figure), 1).json)
    # Then
    assert not set("<>&\u2028\u2029") & set(text)


@pytest.mark.parametrize("link", ["<a href='x'>", "<A HREF=x>", "< a\nhref=x>", "</a>", "<a/href=x>"])
def test_links_in_labels_are_disarmed(link):
    """Plotly would draw them; other markup of labels stays."""
    # Given
    figure = go.Figure(go.Bar(x=[1], hovertext=[f"<b>x</b>{link}y"]))
    # When
    read = json.loads(str(read_figure(data_of(figure), 1).json))
    # Then
    (text,) = read["data"][0]["hovertext"]
    assert text.startswith("<b>x</b>&lt;")
    assert link not in text


def test_images_from_outside_are_taken_out():
    """A layout can name images; a report shows none."""
    # Given
    figure = go.Figure(layout={"images": [{"source": "https://example.com/x.png"}]})
    # When / Then
    assert "example.com" not in str(read_figure(data_of(figure), 1).json)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"data": [{"type": "scattergeo"}]}, "scattergeo"),
        ({"data": [{"type": "scattermap"}, {"type": "bar"}]}, "scattermap"),
        ({"data": "x"}, "not plotly's JSON"),
        ({"data": [1]}, "not plotly's JSON"),
        ("text", "not plotly's JSON"),
    ],
)
def test_what_a_page_cannot_hold_is_said(value, why):
    """Maps fetch, WebGL evaluates, and what is no figure is none."""
    assert why in read_figure(value, 1)
