"""DESIGN section 6: one test file per module, named after it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "perflab"
# module -> why it has no test file of its own
TESTED_ELSEWHERE = {
    "perflab/__main__.py": "tests/acceptance run the command line by it",
    "perflab/cli/_stage.py": "every test of tests/acceptance that plays the demo stands on it",
    "perflab/demo/check.py": "tests/demo/test_demo_realusers.py looks for writes it deleted",
    "perflab/demo/spawn.py": "tests/demo/test_demo_processes.py starts everything by it",
    "perflab/schemas/__main__.py": "tests/house/test_schemas.py compares what it writes with the files",
    "perflab/shadow/wheel/hatch_build.py": "tests/acceptance/test_agent_wheel.py builds by it",
    "perflab/shadow/bootstrap/sitecustomize.py": "run by every interpreter that the tests of attach start",
}
# folder -> what holds its modules to their promise instead of a test file for each
TESTED_AS_A_WHOLE = {
    "perflab/demo/shop": "business code of the demo; tests/demo drives it over HTTP, as users do",
}
# applications as other teams write them, each a program of its own in a process of its own
EXAMPLES = "tests/shadow/examples"
# folders of tests/ that hold whole promises or rules, not modules
NOT_MIRRORING = {"acceptance", "accuracy", "benchmarks", "house"}


def test_every_module_has_its_test_file(root: Path, modules: dict[Path, ast.Module]):
    """perflab/<room>/<module>.py is tested by tests/<room>/test_<room>_<module>.py.

    A module ``otlp_json`` beside a module ``otlp`` may be tested in the latter's file.
    """
    # Given the modules that do something
    wanted = {
        path.relative_to(root).as_posix(): _test_files(path.relative_to(root / "perflab"))
        for path in modules
        if path.name != "__init__.py" and not _is_excused(path.relative_to(root).as_posix())
    }
    # When the files are looked for
    missing = [f"{module}: no {tests[0]}" for module, tests in wanted.items() if not _any_file(root, tests)]
    # Then each is there
    if missing:
        pytest.fail(f"{len(missing)} modules without a test file:\n" + "\n".join(missing), pytrace=False)


def test_every_test_file_mirrors_a_module(root: Path, test_modules: dict[Path, ast.Module]):
    """A test file is named after a module that is there, perhaps followed by the aspect it tests."""
    stray = []
    for path in test_modules:
        short = path.relative_to(root / "tests")
        if path.name == "conftest.py" or short.parts[0] in NOT_MIRRORING or not path.stem.startswith("test_"):
            continue
        room = root / "perflab" / short.parent
        name = path.stem.removeprefix("test_").removeprefix("_".join((*short.parent.parts, "")))
        there = {item.stem.strip("_") for item in room.glob("*.py")} | {
            item.parent.name for item in room.glob("*/__init__.py")
        }
        if not any(name == module or name.startswith(f"{module}_") for module in {*there, room.name}):
            stray.append(f"{path.relative_to(root)}: there is no module {name!r} in {room.relative_to(root)}")
    if stray:
        pytest.fail(f"{len(stray)} test files without a module:\n" + "\n".join(stray), pytrace=False)


def test_test_files_have_names_of_their_own(root: Path, test_modules: dict[Path, ast.Module]):
    """Test folders are no packages, so two files of one name would shadow each other."""
    ours = [path for path in test_modules if not path.is_relative_to(root / EXAMPLES)]
    names = [path.name for path in ours if path.name != "conftest.py"]
    assert sorted({name for name in names if names.count(name) > 1}) == []
    assert [path for path in ours if path.name == "__init__.py"] == []


def test_excuses_are_still_needed(root: Path):
    """A module that is excused from a test file, and is there, does not have one after all."""
    for module in TESTED_ELSEWHERE:
        if (root / module).is_file():
            assert not (root / _test_files(Path(module).relative_to("perflab"))[0]).is_file(), module


def _test_files(module: Path) -> list[Path]:
    """Return where a module may be tested, its own file first; all relative to the checkout."""
    words = module.stem.strip("_").split("_")
    names = ["_".join(words[:count]) for count in range(len(words), 0, -1)]
    beside = [name for name in names[1:] if (PACKAGE / module.parent / f"{name}.py").is_file()]
    folder = Path("tests", module.parent)
    return [folder / "_".join(("test", *module.parent.parts, f"{name}.py")) for name in (names[0], *beside)]


def _any_file(root: Path, tests: list[Path]) -> bool:
    return any((root / test).is_file() for test in tests)


def _is_excused(module: str) -> bool:
    return module in TESTED_ELSEWHERE or any(module.startswith(f"{folder}/") for folder in TESTED_AS_A_WHOLE)
