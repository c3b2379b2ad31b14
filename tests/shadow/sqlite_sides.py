"""A production file and a shadow file of SQLite, and an attached process that knows them."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
from attached_service import Service
from two_sides import Sides

from perflab.cli.attach import attached_environment
from perflab.config import Secret, Store

TABLE = "CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT UNIQUE, data BLOB)"


@dataclass
class FileSides:
    """Where the files of both sides are, and the process."""

    directory: Path
    production: Path
    shadow: Path
    service: Service

    def texts(self, side: str) -> list[str]:
        """Return the notes of the 'production' or 'shadow' file, past the agent."""
        path = self.shadow if side == "shadow" else self.production
        with contextlib.closing(sqlite3.connect(path)) as asked:
            return [text for (text,) in asked.execute("SELECT text FROM note ORDER BY text")]

    def names(self) -> list[str]:
        """Return the names of all files there are."""
        return sorted(path.name for path in self.directory.iterdir())

    def restore(self) -> None:
        """Make both sides anew, empty; production gets a symbolic and a hard link."""
        for path in self.directory.iterdir():
            path.unlink()
        with contextlib.closing(sqlite3.connect(self.production)) as made:
            made.execute(TABLE)
        shutil.copy(self.production, self.shadow)
        (self.directory / "soft.db").symlink_to(self.production)
        (self.directory / "hard.db").hardlink_to(self.production)


@contextlib.contextmanager
def file_sides(sides: Sides, directory: Path) -> Iterator[FileSides]:
    """Start an attached process that also knows a SQLite store, and one that is denied."""
    production, shadow = directory / "files" / "shop.db", directory / "files" / "shadow of it.db"
    production.parent.mkdir()
    (directory / "secret").write_text(f"sqlite:///{str(shadow).replace(' ', '%20')}")
    secret = Secret(file=str(directory / "secret"))
    stores = (
        *sides.target.stores,
        Store("notes", "sqlite", f"sqlite:///{production}", secret),
        Store("sealed", "sqlite", f"sqlite:///{production.parent}/sealed.db", secret, mode="deny"),
    )
    target = msgspec.structs.replace(sides.target, stores=stores)
    with Service(attached_environment(target, "shop")) as started:
        yield FileSides(production.parent, production, shadow, started)
