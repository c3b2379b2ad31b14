"""What is committed besides sources: pins, pages, data; and that no package index is named anywhere."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import perflab

LOCKS = ("requirements.lock", "requirements-dev.lock")
TEXT = {
    "",
    ".py",
    ".md",
    ".toml",
    ".lock",
    ".txt",
    ".cfg",
    ".ini",
    ".json",
    ".ipynb",
    ".yml",
    ".yaml",
    ".html",
    ".sh",
}
INDEX = re.compile(
    r"https?://[^\s\"')]*(?:py" + r"pi\b|pythonhos" + r"ted|/simp" + r"le\b|regis" + r"try\.)"
    r"|(?<!no-emit-)(?:extra-)?index" + r"-url\s*=?\s*\S+:|trus" + r"ted-host|find" + r"-links",
    re.IGNORECASE,
)


@pytest.fixture(scope="module")
def project(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))


def test_no_package_index_is_named(root: Path, committed: tuple[Path, ...]):
    """Which index packages come from is the user's business: no committed file names one."""
    found = [
        f"{path.relative_to(root)}:{number}: {line.strip()[:120]}"
        for path in committed
        if path.suffix in TEXT
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if INDEX.search(line)
    ]
    assert found == []


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_hold_exact_versions_and_nothing_else(root: Path, lock: str):
    """Each line of a lock is ``name==version``, perhaps with a marker."""
    for requirement in _locked(root / lock):
        assert [item.operator for item in requirement.specifier] == ["=="], requirement
        assert requirement.url is None, requirement
        assert not requirement.extras, requirement


def test_every_dependency_is_pinned_within_its_range(root: Path, project: dict[str, Any]):
    """What pyproject.toml asks for is in the locks, at a version it allows."""
    runtime, develop = (_locked(root / lock) for lock in LOCKS)
    asked = [*project["project"]["dependencies"], *project["project"]["optional-dependencies"]["demo"]]
    _expect_pinned(asked, runtime)
    _expect_pinned([*asked, *project["dependency-groups"]["dev"]], develop)
    _expect_pinned(project["build-system"]["requires"], runtime)


def test_the_locks_agree(root: Path):
    """The lock for development holds everything the other does, at the same versions."""
    runtime, develop = ({str(item) for item in _locked(root / lock)} for lock in LOCKS)
    assert sorted(runtime - develop) == []


def test_the_version_is_one(project: dict[str, Any]):
    """pyproject.toml and the package say the same version."""
    assert project["project"]["version"] == perflab.__version__


def test_the_changelog_tells_this_version(root: Path, project: dict[str, Any]):
    """CHANGELOG.md has Keep a Changelog's form: Unreleased or this version on top, known kinds of change."""
    text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[([^\]]+)\]", text, re.MULTILINE)
    kinds = set(re.findall(r"^### (.+)$", text, re.MULTILINE))
    assert versions[0] in ("Unreleased", project["project"]["version"])
    assert {"Unreleased", project["project"]["version"]} & set(versions)
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_data_files_can_be_read(root: Path, committed: tuple[Path, ...]):
    """Every JSON, notebook and TOML file is what its name says."""
    for path in committed:
        if path.suffix in (".json", ".ipynb"):
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".toml":
            tomllib.loads(path.read_text(encoding="utf-8"))


def test_nothing_large_or_binary_is_committed(root: Path, committed: tuple[Path, ...]):
    """Files are small text; pictures and samples are few and below 1 MB."""
    large = {
        str(path.relative_to(root)): path.stat().st_size
        for path in committed
        if path.stat().st_size > 1_000_000
    }
    assert large == {}


def _locked(path: Path) -> list[Requirement]:
    return [Requirement(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _expect_pinned(asked: list[str], locked: list[Requirement]) -> None:
    for wanted in map(Requirement, asked):
        pins = [pin for pin in locked if canonicalize_name(pin.name) == canonicalize_name(wanted.name)]
        assert pins, f"{wanted} is in no lock; 'make lock' pins it"
        for pin in pins:
            version = next(iter(pin.specifier)).version
            assert wanted.specifier.contains(version), f"{pin} is outside {wanted}"
