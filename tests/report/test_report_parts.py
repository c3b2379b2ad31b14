"""Outputs of a notebook become parts of a page; nothing dangerous comes through."""

import re
from html.parser import HTMLParser

import nbformat
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perflab.report.parts import clean_html, markdown, parts_of

HOSTILE = [
    "<script>alert(1)</script>",
    "<SCRIPT SRC=//x.example/x.js></SCRIPT>",
    "<scr<script>ipt>alert(1)</scr</script>ipt>",
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    "<math><mi//xlink:href='data:x,<script>alert(4)</script>'>",
    "<iframe src=javascript:alert(1)>",
    "<a href='javascript:alert(1)'>x</a>",
    "<a href='jav&#x09;ascript:alert(1)'>x</a>",
    "<a href='https://x.example/'>x</a>",
    "<a href='//x.example'>x</a>",
    "<div style='background:url(https://x.example)'>x</div>",
    "<style>@import 'https://x.example';</style>",
    "<link rel=stylesheet href=https://x.example>",
    "<meta http-equiv=refresh content='0;url=https://x.example'>",
    "<base href='https://x.example/'>",
    "<form action='https://x.example'><input name=a><button formaction=javascript:x>y</button></form>",
    "<object data='x'></object><embed src='x'>",
    "<video><source onerror=alert(1)></video>",
    "<b onmouseover=alert(1)>x</b>",
    "<p id=plotly name=x>clobber</p>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "<!--<img src='--><img src=x onerror=alert(1)>",
    "<table background='https://x.example'><tr><td>x",
    "\x00<script\x00>alert(1)</script>",
    "<details ontoggle=alert(1) open>x</details>",
    "<template><script>alert(1)</script></template>",
]


class Dangers(HTMLParser):
    """Collects what a browser would act on."""

    ALLOWED = ("class", "href", "colspan", "rowspan", "scope", "tabindex")

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        if tag in (
            "script",
            "style",
            "iframe",
            "img",
            "svg",
            "math",
            "link",
            "meta",
            "base",
            "form",
            "object",
            "embed",
        ):
            self.found.append(tag)
        for name, value in attrs:
            if name not in self.ALLOWED or (name == "href" and not str(value).startswith("#")):
                self.found.append((tag, name, value))


def dangers(html):
    parser = Dangers()
    parser.feed(str(html))
    parser.close()
    return parser.found


def notebook(*outputs):
    """Return a notebook with one code cell that has these outputs."""
    cell = nbformat.v4.new_code_cell("secret_of_the_cell()")
    cell.outputs = [
        output if "output_type" in output else nbformat.v4.new_output("display_data", data=output)
        for output in outputs
    ]
    return nbformat.v4.new_notebook(cells=[cell])


def html_of(*outputs):
    return "".join(str(part.html) for part in parts_of(notebook(*outputs)) if part.html)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_nothing_a_browser_acts_on_survives(hostile):
    """As HTML, as Markdown, as text, in a heading, in a table, on standard output."""
    assert dangers(clean_html(hostile)) == []
    assert dangers(markdown(f"# {hostile}\n\n{hostile}\n\n| a |\n|--|\n| {hostile} |\n")) == []
    assert dangers(html_of({"text/html": hostile}, {"text/plain": hostile}, {"text/markdown": hostile})) == []
    assert dangers(html_of(nbformat.v4.new_output("stream", name="stdout", text=hostile))) == []
    assert dangers(html_of({"text/html": pd.DataFrame({hostile: [hostile]}).to_html()})) == []


@given(st.text(alphabet="<>/='\"& abhrefonsciptjvld:#!-\x00", max_size=80))
def test_random_markup_gives_nothing_a_browser_acts_on(text):
    """Whatever the soup, only allowed elements and attributes come out."""
    assert dangers(clean_html(text)) == []


def test_links_within_the_page_stay():
    """And only those."""
    assert clean_html('<a href="#errors">see</a>') == '<a href="#errors">see</a>'


@pytest.mark.parametrize(
    "link", ["[x](https://x.example)", "![x](https://x.example/i.png)", "<https://x.example>"]
)
def test_markdown_has_no_addresses(link):
    """Words of a link stay, its address goes."""
    assert not re.search(r"(href|src)\s*=", markdown(link))


def test_code_of_cells_is_left_out():
    """A report shows what came out, not how."""
    assert "secret_of_the_cell" not in html_of({"text/plain": "42"})


def test_the_richest_allowed_output_is_taken():
    """Figure before HTML before text; the others are not looked at."""
    # Given
    figure = {"data": [{"type": "bar", "x": [1]}], "layout": {}}
    output = {"application/vnd.plotly.v1+json": figure, "text/html": "<b>no</b>", "text/plain": "no"}
    # When
    parts = parts_of(notebook(output, {"text/html": "<b>yes</b>", "text/plain": "no"}))
    # Then
    assert parts[0].figure.number == 1
    assert "<b>yes</b>" in parts[1].html


@pytest.mark.parametrize(
    "kind",
    ["application/javascript", "image/svg+xml", "text/latex", "application/vnd.jupyter.widget-view+json"],
)
def test_other_types_are_refused_in_words(kind):
    """What is not allowed is not dropped in silence."""
    assert f"a report holds no {kind}" in html_of({kind: "x"})


def test_sections_are_found_by_their_headings():
    """Each second-level heading becomes an anchor of the contents."""
    # Given
    cells = [
        nbformat.v4.new_markdown_cell(text)
        for text in ("## Call graph\n\nx", "no heading", "## 调用图", "## <b>!", "## B")
    ]
    # When
    parts = parts_of(nbformat.v4.new_notebook(cells=cells))
    # Then
    assert [(part.anchor, part.heading) for part in parts if part.anchor] == [
        ("call-graph", "Call graph"),
        ("调用图", "调用图"),
        ("b", "<b>!"),
        ("b-2", "B"),
    ]


def test_figures_are_numbered_in_order_and_refused_ones_are_not_counted():
    """Two figures around one that cannot be shown are figures 1 and 2."""
    # Given
    kind = "application/vnd.plotly.v1+json"
    good, bad = {kind: {"data": [{"type": "bar"}]}}, {kind: {"data": [{"type": "scattergeo"}]}}
    # When
    parts = parts_of(notebook(good, bad, good))
    # Then
    assert [part.figure.number for part in parts if part.figure] == [1, 2]
    assert "scattergeo" in str(parts[1].html)
