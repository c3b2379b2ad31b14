"""perflab render: a template and a parameters' file in, one HTML file out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

CODE = """import json
given = json.loads(open(params_file).read()) if params_file else {}
print("colour:", given["colour"])"""


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """Write a notebook that takes one parameter and prints it."""
    cells = [
        {"cell_type": "markdown", "id": "head", "metadata": {}, "source": "# Colours"},
        _code("parameters", 'params_file = ""', ["parameters"]),
        _code("print", CODE, []),
    ]
    declared = {"title": "The colour", "parameters": {"colour": {"type": "str", "required": True}}}
    metadata = {"perflab": declared, "kernelspec": {"name": "python3", "display_name": "Python 3"}}
    path = tmp_path / "colours.ipynb"
    content = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_a_template_becomes_one_file(perflab, template: Path, tmp_path: Path):
    """The parameter is on the page, the page is titled by the template, and JSON says where it is."""
    # Given its parameters
    (tmp_path / "params.json").write_text('{"colour": "vermillion"}', encoding="utf-8")
    # When it is rendered
    done = perflab("render", template, "--params", "params.json", "--out", "out/page.html", "--json")
    # Then there is one page, as told
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    page = (tmp_path / "out/page.html").read_text(encoding="utf-8")
    assert told == {
        "report": "out/page.html",
        "figures": 0,
        "bytes": len(page.encode()),
        "notebook": "out/page.ipynb",
    }
    assert "colour: vermillion" in page
    assert "<title>The colour" in page
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"page.html", "page.ipynb"}


@pytest.mark.parametrize(
    ("params", "said"),
    [
        (None, "cannot read the parameters in params.json"),
        ("{", "params.json is not valid JSON"),
        ("[]", "params.json holds list, not one JSON object"),
        ('{"shade": "red"}', "unknown parameter 'shade'"),
        ('{"colour": 3}', "'colour' should be str"),
    ],
)
def test_wrong_parameters_exit_2(perflab, template: Path, tmp_path: Path, params: str | None, said: str):
    """Parameters the template does not take are told before anything runs, and nothing is written."""
    if params is not None:
        (tmp_path / "params.json").write_text(params, encoding="utf-8")
    done = perflab("render", template, "--params", "params.json", "--out", "out/page.html")
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert not list(tmp_path.rglob("*.html"))


def test_an_unknown_template_lists_those_there_are(perflab, tmp_path: Path):
    """A name that is no template's exits 2 and names the shipped ones."""
    (tmp_path / "params.json").write_text("{}", encoding="utf-8")
    done = perflab("render", "nosuch", "--params", "params.json")
    assert done.returncode == 2
    assert "there is no template 'nosuch'; there are:" in done.stderr


def _code(identity: str, source: str, tags: list[str]) -> dict[str, object]:
    return {
        "cell_type": "code",
        "id": identity,
        "metadata": {"tags": tags},
        "source": source,
        "outputs": [],
        "execution_count": None,
    }
