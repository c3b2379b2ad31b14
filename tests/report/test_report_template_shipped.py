"""The templates and notebooks that are shipped, on plausible runs and on broken ones."""

from pathlib import Path

import pytest

from perflab.errors import ReportError
from perflab.report.export import export
from perflab.report.render import render
from perflab.report.template import find_template
from perflab.run import Run

NOTEBOOKS = sorted((find_template("loadtest").parents[1] / "notebooks").glob("*.ipynb"))


def page_of(template, run, folder):
    """Render and export; return the page's text and how many figures it has."""
    notebook = render(template, {"run": str(run)}, folder / "r.ipynb")
    exported = export(notebook, folder / "r.html", "A report")
    return exported.path.read_text(encoding="utf-8"), exported.figures


def test_the_load_test_report_names_the_bottleneck(run_dir, tmp_path):
    """On the plausible run: the query, seven figures, under 3 MB, and every section has something to show."""
    # When
    html, figures = page_of("loadtest", run_dir, tmp_path)
    # Then
    assert '<p class="entity">stock: SELECT stock</p>' in html
    assert figures == 7
    assert (tmp_path / "r.html").stat().st_size < 3_000_000
    for heading in ("Call graph", "Latency", "One slow request", "Was production safe?", "How to read this"):
        assert f">{heading}</a>" in html
    assert "is not shown" not in html


def test_the_same_run_gives_the_same_report(run_dir, tmp_path):
    """Rendered twice, the bytes are equal."""
    # Given
    first, second = tmp_path / "a", tmp_path / "b"
    # When
    one, _ = page_of("loadtest", run_dir, first)
    other, _ = page_of("loadtest", run_dir, second)
    # Then
    assert one == other


def test_a_run_that_failed_early_still_has_a_report(tmp_path):
    """Nothing but an empty run.json: the report says of everything that it is not known."""
    # Given
    run = Run.create(tmp_path / "runs")
    # When
    html, _ = page_of("loadtest", run.path, tmp_path)
    # Then
    for said in ("Unfinished", "Not enough traces", "Isolation is not proven.", "no request was recorded"):
        assert said in html
    assert "is-good" not in html.split("</style>", 1)[1]


def test_a_refused_run_says_why(tmp_path):
    """A few keys are enough."""
    # Given
    run = Run.create(tmp_path / "runs")
    run.write_info({"verdict": "refused", "reason": "mail has no agent & writes to shop"})
    # When
    html, _ = page_of("loadtest", run.path, tmp_path)
    # Then
    assert "Refused" in html
    assert "mail has no agent &amp; writes to shop" in html


def test_a_run_of_a_newer_format_is_refused_with_the_cell_that_said_so(tmp_path):
    """The partial notebook is kept; no report appears."""
    # Given
    run = Run.create(tmp_path / "runs")
    (run.path / "run.json").write_text('{"format_version": 99}')
    # When / Then
    with pytest.raises(ReportError, match="format 99"):
        page_of("loadtest", run.path, tmp_path)
    assert not (tmp_path / "r.html").exists()


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run_on_a_plausible_run(notebook: Path, run_dir, tmp_path):
    """Every notebook of the first shelf, through papermill, and every output of it can be shown."""
    # When
    html, figures = page_of(notebook, run_dir, tmp_path)
    # Then
    assert figures >= 1
    assert "is not shown" not in html


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run_on_an_empty_run(notebook: Path, tmp_path):
    """A run without a span is an answer, too."""
    # Given
    run = Run.create(tmp_path / "runs")
    # When / Then
    page_of(notebook, run.path, tmp_path)
