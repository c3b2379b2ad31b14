"""The look of figures, and the door strange text comes through."""

import plotly.io as pio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perflab import figures
from perflab.figures import theme


@given(st.text())
def test_escaped_text_holds_nothing_plotly_would_interpret(text):
    """Whatever comes in, no tag, entity, math or template comes out."""
    # When
    safe = theme.escape(text, limit=1000)
    # Then
    for entity in ("&amp;", "&lt;", "&gt;", "&#36;", "&#37;"):
        safe = safe.replace(entity, "")
    assert not set("&<>$%") & set(safe)
    assert not any(ord(character) < 32 for character in safe)


def test_long_text_loses_its_middle():
    """Beginning and end of a name tell it apart; 11 characters kept of 20 are 5, an ellipsis, and 5."""
    assert theme.escape("abcdefghijklmnopqrst", limit=11) == "abcde…pqrst"


@pytest.mark.parametrize("hidden", ["\u202e", "\u200b", "\x00", "\u2066", "\ufeff"])
def test_invisible_characters_become_visible(hidden):
    """A bidirectional override or a zero-width character cannot disguise a name."""
    assert theme.escape(f"a{hidden}b") == "a\ufffdb"


def test_a_colour_belongs_to_a_name_whatever_the_order():
    """The same services in another order keep their colours."""
    # Given
    names = [f"service-{number}" for number in range(20)]
    # When / Then
    assert theme.colours(names) == theme.colours(names[::-1])
    assert theme.hatches(names) == theme.hatches(names[::-1])


def test_a_colour_given_twice_is_told_apart_by_its_hatch():
    """Colour and hatch together are unique for 60 services."""
    # Given
    names = [f"service-{number:02d}" for number in range(60)]
    # When
    colour, hatch = theme.colours(names), theme.hatches(names)
    # Then
    assert len({(colour[name], hatch[name]) for name in names}) == 60


def test_no_renderer_offers_an_upload():
    """Plotly's button that sends a figure to a cloud is off wherever a figure is shown."""
    for name in ("plotly_mimetype", "notebook", "browser"):
        assert pio.renderers[name].config["showSendToCloud"] is False
        assert pio.renderers[name].config["displaylogo"] is False


def test_every_name_of_the_room_is_a_function_also_after_its_module_was_imported():
    """``figures.flame`` is the function, though there is a module of that name."""
    # Given
    import perflab.figures.flame
    import perflab.figures.waterfall  # noqa: F401 - importing it is the point

    # When / Then
    for name in figures.__all__:
        assert callable(getattr(figures, name))
        assert type(getattr(figures, name)).__name__ == "function"


def test_a_figure_carries_its_description():
    """What cannot be seen is said: every figure has its words."""
    # When
    figure = theme.empty_figure("There is <nothing> here.")
    # Then
    assert figure.layout.meta["description"] == "There is <nothing> here."
    assert figure.layout.annotations[0].text == "There is &lt;nothing&gt; here."
