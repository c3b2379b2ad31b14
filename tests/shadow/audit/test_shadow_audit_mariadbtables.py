"""A real MariaDB's catalogue: what is there, and what makes a count unsure."""

from __future__ import annotations

from contextlib import closing

import pytest
from audited_maria import execute
from mariadb_server import MariaServer

from perflab.errors import ShadowError
from perflab.shadow.audit.mariadbtables import read_catalogue


def test_every_kind_of_table(mariadb: MariaServer) -> None:
    """Plain, viewed, versioned, triggered, cascading, sequences, and columns that cannot be searched."""
    with closing(mariadb.connect()) as session:
        # Given
        execute(session, "CREATE OR REPLACE DATABASE catalogued", "USE catalogued")
        execute(
            session,
            "CREATE TABLE Plain (id int PRIMARY KEY, wide varchar(9) CHARACTER SET utf32)",
            "CREATE TABLE child (id int, FOREIGN KEY (id) REFERENCES Plain (id) ON DELETE SET NULL)",
            "CREATE VIEW seen AS SELECT * FROM Plain",
            "CREATE TABLE versioned (a text COMPRESSED) WITH SYSTEM VERSIONING",
            "CREATE TABLE watched (a int)",
            "CREATE TRIGGER t BEFORE INSERT ON watched FOR EACH ROW SET NEW.a = 1",
            "CREATE SEQUENCE numbers",
            "CREATE TABLE hole (a int) ENGINE = BLACKHOLE" if has_blackhole(session) else "SELECT 1",
        )

        # When
        found = read_catalogue(session, "catalogued")

        # Then
        assert {"plain", "child", "seen", "versioned", "watched"} <= found.tables.logged
        assert found.tables.indirect == {"seen", "versioned", "watched"}
        assert found.sequences == {"numbers"}
        assert found.cascading == ["plain"]
        assert found.unsearchable == ["Plain.wide", "versioned.a"]
        assert found.elsewhere == (["hole"] if has_blackhole(session) else [])
        execute(session, "DROP DATABASE catalogued")


def test_a_schema_that_cannot_be_seen_is_an_error(mariadb: MariaServer) -> None:
    """Without a table no claim can be compared; the message says what to grant."""
    with closing(mariadb.connect()) as session, pytest.raises(ShadowError, match="GRANT SELECT, SHOW VIEW"):
        read_catalogue(session, "no_such_schema")


def has_blackhole(session: object) -> bool:
    """Tell whether this server has that engine."""
    from perflab.shadow.mariadb_login import rows

    return any(row[0] == "BLACKHOLE" for row in rows(session, "SHOW ENGINES"))  # type: ignore[arg-type]  # a session
