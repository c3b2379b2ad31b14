"""Which file a name means to SQLite."""

from __future__ import annotations

from pathlib import Path

import pytest

from perflab.config import Secret, Store
from perflab.shadow.sql.sqlite_files import place_of, read_name, same_file, shadow_uri
from perflab.shadow.stores import Place, Twin


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("shop.db", "shop.db"),
        (b"shop.db", "shop.db"),
        (Path("/x/shop.db"), "/x/shop.db"),
        ("", ""),
        (":memory:", ""),
        ("file:shop.db", "shop.db"),
        ("file:/x/sh%20p.db?mode=ro#part", "/x/sh p.db"),
        ("file:///x/shop.db", "/x/shop.db"),
        ("file://localhost/x/shop.db?vfs=unix-dotfile", "/x/shop.db"),
        ("file::memory:", ""),
        ("file:shop.db?mode=memory", ""),
    ],
)
def test_names_are_read_as_sqlite_reads_them(name: str, path: str) -> None:
    """Paths, URIs, and databases that are nobody else's."""
    named = read_name(name, uri=True)
    assert (named.path, named.unclear) == (path, "")


@pytest.mark.parametrize(
    "name",
    [
        "file://elsewhere/x.db",
        "file:x.db?mode=ro&mode=rw",
        "file:x.db?vfs=memdb",
        "file::memory:?cache=shared",
        "file:x%00.db",
    ],
)
def test_what_cannot_be_told_says_why(name: str) -> None:
    """Other hosts, contradictions, shared memory, unknown file systems."""
    assert read_name(name, uri=True).unclear
    assert read_name("file:x.db", uri=False).unclear


def test_files_are_compared_by_what_they_are(tmp_path: Path) -> None:
    """Links are the file they lead to; a known file is named as the configuration names it."""
    # Given
    there, soft, hard = (tmp_path / name for name in ("shop.db", "soft.db", "hard.db"))
    there.touch()
    soft.symlink_to(there)
    hard.hardlink_to(there)
    production, shadow = Place("", 0, str(there)), Place("", 0, str(tmp_path / "shadow ?.db"))
    twin = Twin(Store("notes", "sqlite", "sqlite:////x", Secret(file="x")), production, shadow)
    # Then
    assert same_file(str(soft), str(hard))
    assert place_of(str(hard), [twin]) == place_of(str(soft), [twin]) == production
    assert place_of(str(tmp_path / "a" / ".." / "new.db"), [twin]) == Place("", 0, str(tmp_path / "new.db"))
    assert shadow_uri(twin, {"mode": "rwc", "x": "y"}) == f"file:{tmp_path}/shadow%20%3F.db?mode=rw"
    assert shadow_uri(twin, {"mode": "ro"}).endswith("?mode=ro")
