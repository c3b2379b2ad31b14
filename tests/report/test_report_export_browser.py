"""The report in a real browser without a network: drawn, quiet, readable at every width and on paper."""

import time
from collections.abc import Iterator

import pytest

from perflab.report.export import export
from perflab.report.render import render

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")

ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
HOSTILE = "/<img src=x onerror=document.title='owned'><a href='javascript:x'>$m$ %{y}</a>\u202e"
CONTRAST = """
() => {
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((part) => {
      const share = part / 255;
      return share <= 0.03928 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const element of document.querySelectorAll("main *, nav *, footer *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || element.closest("svg, script, noscript") || !element.getClientRects().length) continue;
    const a = luminance(parse(getComputedStyle(element).color).slice(0, 3)), b = luminance(behind(element));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push([element.className, element.textContent.slice(0, 40), ratio.toFixed(2)]);
  }
  return poor;
}
"""


@pytest.fixture(scope="module")
def browser(chromium) -> Iterator:
    """Start the browser once."""
    with playwright.sync_playwright() as starter:
        started = starter.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def report(make_run, tmp_path_factory):
    """Render and export the load-test report of a run whose names are hostile."""
    folder = tmp_path_factory.mktemp("report")
    run = make_run(folder / "20260101T000000-demo-0000", strange=HOSTILE)
    notebook = render("loadtest", {"run": str(run.path)}, folder / "r.ipynb")
    return export(notebook, folder / "r.html", "Load test <of> the shop")


@pytest.fixture
def open_page(browser):
    """Open a file with every request but the file's own refused and counted; wait until all is drawn."""
    contexts = []

    def open_(path, width=1440, height=900, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.refused, page.complaints = [], []

        def decide(route):
            if route.request.url == path.as_uri():
                route.continue_()
            else:
                page.refused.append(route.request.url)
                route.abort()

        context.route("**/*", decide)
        page.on("console", lambda message: page.complaints.append((message.type, message.text)))
        page.on("pageerror", lambda error: page.complaints.append(("error", str(error))))
        page.goto(path.as_uri())
        return page

    yield open_
    for context in contexts:
        context.close()


def drawn(page, missing=0):
    """Wait, polling, until as many figures are drawn as were written, but for the missing; return both."""
    ends_at = time.monotonic() + 60
    while True:
        written, done = page.evaluate(
            "[document.documentElement.dataset.figures, document.documentElement.dataset.drawn]"
        )
        if int(written) - missing == int(done) or time.monotonic() > ends_at:
            return int(written), int(done)
        time.sleep(0.05)


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (390, 844)])
def test_every_figure_is_drawn_without_a_request_or_a_complaint(open_page, report, width, height):
    """At desk and on the phone: drawn = written, no request, nothing on the console, no sideways scroll."""
    # When
    page = open_page(report.path, width, height)
    # Then
    assert drawn(page) == (report.figures, report.figures)
    assert page.locator(".js-plotly-plot .main-svg").count() >= report.figures
    assert page.refused == []
    assert page.complaints == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_first_screen_is_the_answer(open_page, report):
    """Verdict, bottleneck, gain and the four cards are visible before any scrolling."""
    # When
    page = open_page(report.path)
    # Then
    for wanted in ("h1", ".finding .entity", ".finding .facts", ".cards"):
        box = page.locator(wanted).first.bounding_box()
        assert box["y"] + box["height"] <= 900, wanted
    assert page.locator("h1").inner_text().strip() == "Passed"
    assert page.locator(".finding .entity").inner_text() == "stock: SELECT stock"


def test_hostile_names_are_shown_and_do_nothing(open_page, report):
    """The operation's name stands in the page as text; no image, no link out, the title is ours."""
    # When
    page = open_page(report.path)
    drawn(page)
    # Then
    assert page.title() == "Load test <of> the shop"
    assert page.evaluate("document.images.length") == 0
    assert (
        page.evaluate(
            "[...document.links].filter((link) => !link.getAttribute('href').startsWith('#')).length"
        )
        == 0
    )
    assert page.evaluate("[...document.querySelectorAll('svg a')].length") == 0
    assert "onerror=document.title" in page.locator("main").inner_text()


def test_a_figure_that_cannot_be_drawn_says_so_and_the_others_are_drawn(open_page, report, tmp_path):
    """One figure's data is broken: a visible message in its place, one less in the count."""
    # Given
    text = report.path.read_text(encoding="utf-8")
    broken = tmp_path / "broken.html"
    broken.write_text(
        text.replace('<script type="application/json">{', '<script type="application/json">', 1)
    )
    # When
    page = open_page(broken)
    # Then
    assert drawn(page, missing=1) == (report.figures, report.figures - 1)
    message = page.locator("figure.is-failed .state")
    assert message.count() == 1
    assert message.is_visible()
    assert "could not be drawn" in message.inner_text()


def test_without_plotly_every_figure_says_so(open_page, report, tmp_path):
    """The packed script is damaged: no figure is drawn, each says so, the words stay."""
    # Given
    text = report.path.read_text(encoding="utf-8")
    broken = tmp_path / "broken.html"
    broken.write_text(text.replace('id="plotly">H4sI', 'id="plotly">AAAA', 1))
    # When
    page = open_page(broken)
    # Then
    ends_at = time.monotonic() + 20
    while page.locator("figure.is-failed").count() < report.figures and time.monotonic() < ends_at:
        time.sleep(0.05)
    assert page.locator("figure.is-failed .state:visible").count() == report.figures
    assert page.locator("figcaption:visible").count() == report.figures


def test_without_scripts_the_words_are_all_there(open_page, report):
    """Verdict, captions and tables need no JavaScript, and each figure says that it does."""
    # When
    page = open_page(report.path, java_script_enabled=False)
    # Then
    assert page.locator("figcaption:visible").count() == report.figures
    assert page.locator("figure noscript").count() == report.figures
    assert page.locator("h1").is_visible()


def test_words_have_contrast_enough_for_everyone(open_page, report):
    """WCAG AA: at least 4.5 to 1 between every text of the page and what is behind it."""
    # When
    page = open_page(report.path)
    # Then
    assert page.evaluate(CONTRAST) == []


def test_the_critical_frame_can_be_clicked_to_enlarge_it(open_page, report):
    """A click on a frame of the flame chart narrows the axis to it."""
    # Given
    page = open_page(report.path)
    drawn(page)
    plot = page.locator("figure.figure .plot").filter(has_text="share of critical time").first
    plot.scroll_into_view_if_needed()
    before = plot.evaluate("(plot) => plot.layout.xaxis.range[1] - plot.layout.xaxis.range[0]")
    # When
    frame = plot.locator("g.points g.point path").last.bounding_box()
    page.mouse.click(frame["x"] + frame["width"] / 2, frame["y"] + frame["height"] / 2)
    # Then
    ends_at = time.monotonic() + 10
    width = before
    while width == before and time.monotonic() < ends_at:
        width = plot.evaluate("(plot) => plot.layout.xaxis.range[1] - plot.layout.xaxis.range[0]")
        time.sleep(0.05)
    assert width < before


def test_it_prints_on_a4(open_page, report):
    """A PDF of several pages, with the figures as narrow as the paper."""
    # Given
    page = open_page(report.path)
    drawn(page)
    # When
    pdf = page.pdf(format="A4", print_background=True, prefer_css_page_size=True)
    # Then
    assert pdf.startswith(b"%PDF")
    assert 4 <= pdf.count(b"/Type /Page\n") + pdf.count(b"/Type/Page\n") + pdf.count(b"/Type /Page ") <= 40
    assert page.complaints == []
