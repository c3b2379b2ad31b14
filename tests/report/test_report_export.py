"""One notebook, one file: complete, the same every time, and trusting nothing."""

import base64
import gzip
import hashlib
import json
import re
from html import escape
from html.parser import HTMLParser

import nbformat
import plotly.graph_objects as go
import pytest
from plotly.offline import get_plotlyjs

from perflab.errors import ReportError
from perflab.report.export import export

HOSTILE = "</script></style><script>alert(1)</script><img src=https://x.example onerror=alert(1)>'\""


def write(path, *outputs, markdown=(), metadata=None):
    """Write an executed notebook with these outputs."""
    cells = [nbformat.v4.new_markdown_cell(text) for text in markdown]
    cells += [nbformat.v4.new_code_cell("1", outputs=[_output(output)]) for output in outputs]
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata or {}), path)
    return path


def _output(output):
    return output if "output_type" in output else nbformat.v4.new_output("display_data", data=output)


def figure(text="x"):
    drawn = go.Figure(go.Bar(x=[1, 2], y=[2, 1], name=text, hovertext=[text, text]))
    drawn.update_layout(height=200, title=text, meta={"description": text})
    return {"application/vnd.plotly.v1+json": json.loads(drawn.to_json())}


def without_data(html):
    """Return a page without its compressed plotly.js and without the JSON of its figures."""
    html = re.sub(r'<script type="application/gzip".*?</script>', "", html, flags=re.DOTALL)
    return re.sub(r'<script type="application/json">.*?</script>', "", html, flags=re.DOTALL)


def test_it_says_how_many_figures_and_bytes_it_wrote(tmp_path):
    """The result, the page and the file agree."""
    # When
    exported = export(write(tmp_path / "n.ipynb", figure(), figure()), tmp_path / "out" / "r.html", "Two")
    # Then
    html = exported.path.read_text(encoding="utf-8")
    assert exported.figures == 2
    assert 'data-figures="2"' in html
    assert html.count('<figure class="figure"') == 2
    assert exported.bytes == exported.path.stat().st_size
    assert [path.name for path in exported.path.parent.iterdir()] == ["r.html"]


def test_the_same_notebook_gives_the_same_bytes(tmp_path):
    """No time, no random id, no file name is in it."""
    # Given
    notebook = write(tmp_path / "n.ipynb", figure(), {"text/plain": "x"}, markdown=["## A"])
    # When
    one = export(notebook, tmp_path / "one.html", "T").path.read_bytes()
    other = export(notebook, tmp_path / "other.html", "T").path.read_bytes()
    # Then
    assert one == other


def test_plotly_is_in_it_once_and_whole(tmp_path):
    """What is unpacked is the file of the installed wheel, byte for byte."""
    # When
    html = export(write(tmp_path / "n.ipynb", figure(), figure()), tmp_path / "r.html", "T").path.read_text()
    # Then
    (packed,) = re.findall(r'<script type="application/gzip" id="plotly">([^<]*)</script>', html)
    assert gzip.decompress(base64.b64decode(packed)).decode() == get_plotlyjs()


def test_a_page_without_figures_carries_no_plotly(tmp_path):
    """Text alone is small."""
    exported = export(write(tmp_path / "n.ipynb", {"text/plain": "x"}), tmp_path / "r.html", "T")
    assert exported.bytes < 60_000


def test_the_policy_allows_exactly_what_is_in_the_page(tmp_path):
    """Every script and style sheet is named by the hash of its content, and nothing else is allowed."""
    # When
    html = export(write(tmp_path / "n.ipynb", figure()), tmp_path / "r.html", "T").path.read_text()
    # Then
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1].replace("&#39;", "'")
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    scripts = [*re.findall(r"<script>(.*?)</script>", html, flags=re.DOTALL), get_plotlyjs()]
    styles = re.findall(r"<style[^>]*>(.*?)</style>", html, flags=re.DOTALL)
    assert rules["default-src"] == "'none'"
    assert sorted(rules["script-src"].split()) == sorted(map(_hash, scripts))
    assert set(rules["style-src"].split()) == set(map(_hash, styles))
    assert rules["img-src"] == "data:"
    assert "unsafe" not in policy


def _hash(text):
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_there_is_no_address_in_it(tmp_path):
    """Neither our theme nor any output names a place outside the file."""
    # Given
    outputs = [figure(HOSTILE), {"text/html": HOSTILE}, {"text/markdown": HOSTILE}]
    # When
    html = export(
        write(tmp_path / "n.ipynb", *outputs, markdown=[HOSTILE]), tmp_path / "r.html", "T"
    ).path.read_text()
    # Then
    page = Attributes()
    page.feed(html)
    assert page.addresses == []
    assert not re.search(r"@import|url\(", without_data(html).replace(escape(HOSTILE), ""))


class Attributes(HTMLParser):
    """Collects every attribute that could make a browser fetch something."""

    NAMES = (
        "src",
        "href",
        "action",
        "formaction",
        "data",
        "poster",
        "srcset",
        "background",
        "style",
        "xlink:href",
    )

    def __init__(self):
        super().__init__()
        self.addresses = []

    def handle_starttag(self, tag, attrs):
        self.addresses += [
            (tag, name, value)
            for name, value in attrs
            if name in self.NAMES and not str(value).startswith("#")
        ]


def test_hostile_text_in_every_place_stays_text(tmp_path):
    """Title, language, headings, descriptions, labels, output: scripts are ours alone."""
    # Given
    notebook = write(
        tmp_path / "n.ipynb",
        figure(HOSTILE),
        {"text/html": HOSTILE},
        {"text/plain": HOSTILE},
        markdown=[f"## {HOSTILE}"],
        metadata={"perflab": {"language": HOSTILE}},
    )
    # When
    html = export(notebook, tmp_path / "r.html", HOSTILE).path.read_text()
    # Then
    assert len(re.findall(r"<script", html)) == 3  # one figure's data, plotly.js, the page's own
    assert len(re.findall(r"<style", html)) == 2  # ours, and the placeholder plotly.js looks for
    assert "<img" not in html


def test_every_figure_has_its_words(tmp_path):
    """For those who cannot see it, for printers, and for when it cannot be drawn."""
    # When
    html = export(
        write(tmp_path / "n.ipynb", figure("Latency by second.")), tmp_path / "r.html", "T"
    ).path.read_text()
    # Then
    assert 'role="img" aria-label="Latency by second."' in html
    assert "<figcaption><b>Figure 1.</b> Latency by second.</figcaption>" in html
    assert "<noscript>" in html


def test_language_title_and_contents_are_there(tmp_path):
    """A browser, a reader and a screen reader each find what they look for."""
    # Given
    notebook = write(
        tmp_path / "n.ipynb",
        {"text/plain": "x"},
        markdown=["## 调用图"],
        metadata={"perflab": {"language": "zh"}},
    )
    # When
    html = export(notebook, tmp_path / "r.html", "压测报告").path.read_text(encoding="utf-8")
    # Then
    assert '<html lang="zh"' in html
    assert "<title>压测报告</title>" in html
    assert '<a href="#调用图">调用图</a>' in html


def test_a_notebook_with_a_failed_cell_is_not_exported(tmp_path):
    """The message names cell and error; a report that was there before stays."""
    # Given
    (tmp_path / "r.html").write_text("before")
    error = nbformat.v4.new_output("error", ename="ValueError", evalue="no", traceback=[])
    # When / Then
    with pytest.raises(ReportError, match="cell 1 failed with ValueError: no"):
        export(write(tmp_path / "n.ipynb", error), tmp_path / "r.html", "T")
    assert (tmp_path / "r.html").read_text() == "before"


@pytest.mark.parametrize("text", [None, "", "{}", "[1]", "not json"])
def test_what_is_no_notebook_is_refused(tmp_path, text):
    """Missing, empty or something else: the message names the file."""
    path = tmp_path / "n.ipynb"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ReportError, match=r"n\.ipynb"):
        export(path, tmp_path / "r.html", "T")


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    """A folder in the way of the file: an error that names it, and nothing half written."""
    # Given
    (tmp_path / "r.html").mkdir()
    # When / Then
    with pytest.raises(ReportError, match=r"cannot write the report .*r\.html"):
        export(write(tmp_path / "n.ipynb", {"text/plain": "x"}), tmp_path / "r.html", "T")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["n.ipynb", "r.html"]
