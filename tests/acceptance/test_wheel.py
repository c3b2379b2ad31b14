"""The wheel: built, installed into a fresh environment and used outside the checkout, it is complete."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import perflab

ROOT = Path(__file__).resolve().parents[2]
WHERE = """
import json, pathlib
import perflab, perflab.demo
from perflab.report.template import find_template, load_template
from perflab.report.template import find_theme
from perflab.cli.lab import notebooks_folder
package = pathlib.Path(perflab.__file__).parent
template = load_template(find_template("loadtest"))
notebooks = notebooks_folder(pathlib.Path("notebooks"))
print(json.dumps({
    "package": str(package),
    "demo": str(pathlib.Path(perflab.demo.__file__).parent),
    "template": str(template.path),
    "theme": str(find_theme()),
    "schemas": {p.name: json.loads(p.read_text())["$schema"] for p in package.glob("schemas/*.json")},
    "notebooks": sorted(p.name for p in notebooks.glob("*.ipynb")),
}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel, built from the checkout."""
    folder = tmp_path_factory.mktemp("dist")
    done = _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the bin folder of a fresh environment that has the wheel, and the dependencies by a path."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, with_pip=True, symlinks=True)
    interpreter = folder / "bin" / "python"
    done = _run(interpreter, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=folder)
    assert done.returncode == 0, done.stderr
    # the dependencies are those the tests run with; the line is appended, so the wheel's perflab comes first
    (site,) = (folder / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    return folder / "bin"


def test_the_wheel_holds_what_it_should(wheel: Path):
    """Sources, templates, the theme, notebooks, schemas and the type marker are in it; tests are not."""
    names = set(zipfile.ZipFile(wheel).namelist())
    # Given what the checkout has
    shipped = {
        f"{prefix}{path.relative_to(ROOT).as_posix()}"
        for pattern, prefix in (
            ("perflab/**/*", ""),
            ("templates/**/*", "perflab/"),
            ("notebooks/*.ipynb", "perflab/"),
        )
        for path in ROOT.glob(pattern)
        if path.is_file() and not {"__pycache__", ".ipynb_checkpoints"} & set(path.parts)
    }
    # Then the wheel has it all, and nothing else beside its own metadata
    assert sorted(shipped - names) == []
    rest = {
        name for name in names - shipped if not name.startswith(f"perflab-{perflab.__version__}.dist-info/")
    }
    assert sorted(rest) == []
    assert "perflab/py.typed" in names
    assert f"perflab-{perflab.__version__}.dist-info/licenses/LICENSE" in names


def test_the_program_runs_outside_the_checkout(installed: Path, tmp_path: Path):
    """``perflab --help`` and every verb's own help work where there is no checkout."""
    done = _run(installed / "perflab", "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    verbs = {
        line.split()[0] for line in done.stdout.partition("verbs:")[2].splitlines() if line.startswith("  ")
    }
    assert {"analyse", "attach", "demo", "lab", "launch", "render", "runs"} <= verbs
    for verb in sorted(verbs):
        done = _run(installed / "perflab", verb, "--help", cwd=tmp_path)
        assert done.returncode == 0, f"{verb}: {done.stderr}"


def test_everything_is_found_in_the_installed_package(installed: Path, tmp_path: Path):
    """Template, theme, demo, schemas and notebooks come from the installed package, not from the checkout."""
    # When the installed package is asked, in an empty folder
    done = _run(installed / "python", "-c", WHERE, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    # Then everything lies in it
    package = Path(found["package"])
    assert package.is_relative_to(installed.parent)
    assert Path(found["template"]) == package / "templates" / "loadtest.ipynb"
    assert Path(found["theme"]) == package / "templates" / "html"
    assert Path(found["demo"]) == package / "demo"
    assert {"perflab.schema.json", "scenario.schema.json"} <= set(found["schemas"])
    assert set(found["schemas"].values()) == {"https://json-schema.org/draft/2020-12/schema"}
    assert found["notebooks"] == sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
    assert found["notebooks"]
    assert (tmp_path / "notebooks" / found["notebooks"][0]).is_file()


def _run(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")
    }
    return subprocess.run(
        list(map(str, words)), cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
