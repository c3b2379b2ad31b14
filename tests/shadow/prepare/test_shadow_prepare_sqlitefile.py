"""Shadows of SQLite files."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from perflab.config import Sample
from perflab.errors import ConfigError, ShadowError
from perflab.shadow.prepare.sqlitefile import drop_sqlite, look_at_sqlite, prepare_sqlite

SCHEMA = """
CREATE TABLE people (id INTEGER PRIMARY KEY AUTOINCREMENT, email TEXT UNIQUE, age INT, photo BLOB);
CREATE TABLE visits (id INTEGER PRIMARY KEY, person INT REFERENCES people, at REAL);
CREATE TABLE log (line TEXT);
CREATE INDEX visits_person ON visits (person);
CREATE VIEW grown AS SELECT id FROM people WHERE age > 17;
CREATE TRIGGER noted AFTER INSERT ON visits BEGIN INSERT INTO log VALUES ('visit'); END;
INSERT INTO people (email, age)
    VALUES ('a@corp.example', 20), ('b@corp.example', 30), ('c@corp.example', NULL);
INSERT INTO visits (person, at) VALUES (1, 1.5), (2, 2.5);
"""
SAMPLE = Sample(
    tables={"visits": 1}, masks={"people.email": "email", "people.photo": "null", "people.age": "hash"}
)


@pytest.fixture
def production(tmp_path: Path) -> Iterator[str]:
    """Make one that is open elsewhere and has an uncommitted write."""
    path = str(tmp_path / "shop.db")
    with closing(sqlite3.connect(path)) as session:
        session.execute("PRAGMA journal_mode = WAL")
        session.executescript(SCHEMA)
        session.execute("INSERT INTO log VALUES ('not yet')")
        yield path


def test_a_file_is_made_beside_one_in_use(production: str, tmp_path: Path) -> None:
    """Its schema, a masked sample with parents, ids apart; triggers do not fire while rows come."""
    # When
    shadow = str(tmp_path / "shadow.db")
    made = prepare_sqlite(production, shadow, sample=SAMPLE, mask_key=b"key")

    # Then
    assert made.rows == {"visits": 1, "people": 1}
    with closing(sqlite3.connect(shadow)) as session:
        (person,) = session.execute("SELECT id, email, age FROM people").fetchall()
        assert person[0] == 2
        assert person[1].endswith(".test")
        assert "corp" not in person[1]
        assert isinstance(person[2], int)
        assert session.execute("SELECT person, at FROM visits").fetchall() == [(2, 2.5)]
        assert session.execute("SELECT count(*) FROM log").fetchone() == (0,)
        session.execute("INSERT INTO people (email) VALUES ('x')")
        assert session.execute("SELECT max(id) FROM people").fetchone() == (1_000_000_004,)
        session.execute("INSERT INTO visits (person) VALUES (2)")
        assert session.execute("SELECT count(*) FROM log").fetchone() == (1,)
    states = {check.what: check.state for check in look_at_sqlite(production, shadow)}
    assert states == {
        "there": "good",
        "ours": "good",
        "confined": "unknown",
        "schema": "good",
        "rows": "good",
    }


def test_again_keeps_rows_and_refresh_builds_anew(production: str, tmp_path: Path) -> None:
    """And a changed schema is told."""
    shadow = str(tmp_path / "shadow.db")
    prepare_sqlite(production, shadow)
    with closing(sqlite3.connect(shadow)) as session:
        session.execute("INSERT INTO log VALUES ('mine')")
        session.commit()
    with closing(sqlite3.connect(production)) as session:
        session.execute("SELECT 1")
    assert prepare_sqlite(production, shadow).created is False
    with closing(sqlite3.connect(shadow)) as session:
        assert session.execute("SELECT line FROM log").fetchall() == [("mine",)]
    assert prepare_sqlite(production, shadow, refresh=True).created
    with closing(sqlite3.connect(shadow)) as session:
        assert session.execute("SELECT line FROM log").fetchall() == []


def test_a_changed_schema_is_told(tmp_path: Path) -> None:
    """By name of what to do."""
    production, shadow = str(tmp_path / "p.db"), str(tmp_path / "s.db")
    with closing(sqlite3.connect(production)) as session:
        session.executescript(SCHEMA)
        prepare_sqlite(production, shadow)
        session.execute("CREATE TABLE more (a)")
        states = {check.what: check for check in look_at_sqlite(production, shadow)}
    assert states["schema"].state == "bad"
    assert "--refresh" in states["schema"].text


def test_only_what_was_made_is_dropped(production: str, tmp_path: Path) -> None:
    """Somebody's file is neither replaced nor removed."""
    shadow = tmp_path / "shadow.db"
    shadow.write_text("mine")
    for attempt in (lambda: prepare_sqlite(production, str(shadow)), lambda: drop_sqlite(str(shadow))):
        with pytest.raises(ShadowError, match="not made by perflab"):
            attempt()
    assert look_at_sqlite(production, str(shadow))[0].state == "bad"
    shadow.unlink()
    assert look_at_sqlite(production, str(shadow))[0].text.startswith("there is no file")
    prepare_sqlite(production, str(shadow))
    would = drop_sqlite(str(shadow), only_look=True)
    assert shadow.exists()
    assert drop_sqlite(str(shadow)) == would
    assert not list(tmp_path.glob("shadow*"))


def test_personal_columns_and_virtual_tables_are_refused(production: str, tmp_path: Path) -> None:
    """Nothing is left of the attempt."""
    shadow = tmp_path / "shadow.db"
    with pytest.raises(ConfigError, match=r"main\.people\.email"):
        prepare_sqlite(production, str(shadow), sample=Sample(rows=1))
    with pytest.raises(ShadowError, match="a name of its own"):
        prepare_sqlite(production, production)
    with pytest.raises(ShadowError, match="cannot be made"):
        prepare_sqlite(str(tmp_path / "nothing.db"), str(shadow))
    other = str(tmp_path / "virtual.db")
    with closing(sqlite3.connect(other)) as session:
        session.execute("CREATE VIRTUAL TABLE search USING fts5(text)")
    with pytest.raises(ConfigError, match="virtual tables"):
        prepare_sqlite(other, str(shadow))
    assert not list(tmp_path.glob("shadow*"))
