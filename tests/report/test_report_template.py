"""Templates: finding them, reading what they declare, checking what they are given."""

import json

import pytest

from perflab.errors import ConfigError
from perflab.report.template import (
    check_params,
    find_template,
    find_theme,
    load_template,
    read_params,
)

DECLARED = {
    "run": {"type": "path", "required": True, "description": "the run's directory"},
    "top": {"type": "int", "description": "rows"},
    "title": {"type": "str"},
    "share": {"type": "float"},
    "quick": {"type": "bool"},
}


@pytest.fixture
def template(tmp_path):
    """Return a template that declares a parameter of every type."""
    return load_template(notebook(tmp_path, DECLARED))


def notebook(folder, declared, tags=("parameters",)):
    """Write a notebook with one cell per tag."""
    cells = [
        {"cell_type": "code", "metadata": {"tags": [tag]}, "source": 'params_file = ""', "outputs": []}
        for tag in tags
    ]
    path = folder / "some.ipynb"
    content = {"cells": cells, "metadata": {"perflab": {"title": "Some", "parameters": declared}}}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_the_shipped_template_is_found_by_name():
    """With and without its ending, and it declares its run."""
    assert find_template("loadtest") == find_template("loadtest.ipynb")
    assert [parameter.name for parameter in load_template(find_template("loadtest")).parameters] == ["run"]


@pytest.mark.parametrize("name", ["no-such", "../templates/loadtest", "", "html/page"])
def test_an_unknown_template_is_refused_with_those_there_are(name):
    """The message lists the templates; a name cannot walk out of their folder."""
    with pytest.raises(ConfigError, match="loadtest"):
        find_template(name)


def test_the_theme_is_there():
    """The page, its style and its script."""
    assert {path.name for path in find_theme().iterdir()} >= {"page.html.j2", "style.css", "page.js"}


def test_right_parameters_pass_and_paths_become_absolute(template, tmp_path, monkeypatch):
    """A relative path is made absolute before the kernel, whose folder may differ, sees it."""
    # Given
    monkeypatch.chdir(tmp_path)
    given = {"run": ".", "top": 3, "title": "x", "share": 1, "quick": True}
    # When / Then
    assert check_params(template, given) == {**given, "run": str(tmp_path.resolve())}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "parameter 'run' is missing"),
        ({"run": ".", "speed": 1}, "unknown parameter 'speed'"),
        ({"run": 5}, "'run' should be path, is int"),
        ({"run": "no/such/place"}, "there is no no/such/place"),
        ({"run": ".", "top": "3"}, "'top' should be int, is str"),
        ({"run": ".", "top": True}, "'top' should be int, is bool"),
        ({"run": ".", "top": 1.5}, "'top' should be int, is float"),
        ({"run": ".", "quick": 1}, "'quick' should be bool, is int"),
        ({"run": ".", "title": None}, "'title' should be str, is NoneType"),
    ],
)
def test_wrong_parameters_are_refused_with_what_there_is(template, params, message):
    """The message says what is wrong and lists every parameter with its type and meaning."""
    with pytest.raises(ConfigError) as refused:
        check_params(template, params)
    assert message in str(refused.value)
    assert "run (path, required): the run's directory; top (int): rows" in str(refused.value)


def test_everything_wrong_is_said_at_once(template):
    """Nobody should have to run three times to learn of three mistakes."""
    with pytest.raises(ConfigError, match=r"unknown parameter 'a'.*'run' is missing.*'top' should be int"):
        check_params(template, {"a": 1, "top": "x"})


@pytest.mark.parametrize("tags", [(), ("parameters", "parameters"), ("other",)])
def test_a_template_has_exactly_one_parameters_cell(tmp_path, tags):
    """None or two of them are refused."""
    with pytest.raises(ConfigError, match="exactly one"):
        load_template(notebook(tmp_path, {}, tags))


def test_an_unknown_type_is_refused(tmp_path):
    """A template that declares what cannot be checked is no template."""
    with pytest.raises(ConfigError, match=r"'date'.*the types are str, int"):
        load_template(notebook(tmp_path, {"day": {"type": "date"}}))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"cells": 1}'])
def test_a_file_that_is_no_notebook_is_refused(tmp_path, text):
    """Whatever is in it, the message names the file."""
    path = tmp_path / "broken.ipynb"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"broken\.ipynb"):
        load_template(path)


def test_parameters_are_read_back_inside_the_notebook(tmp_path):
    """From the file whose path the parameters cell holds; by hand there are none."""
    path = tmp_path / "params.json"
    path.write_text('{"run": "/x"}', encoding="utf-8")
    assert read_params(str(path)) == {"run": "/x"}
    assert read_params("") == {}
