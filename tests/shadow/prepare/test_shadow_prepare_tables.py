"""Tables, columns and references are read from the catalogue."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg
import pytest

from perflab.errors import ConfigError
from perflab.shadow.prepare.masks import Column
from perflab.shadow.prepare.tables import Reference, Table, find_column, find_table, read_tables

SCHEMA = """
CREATE SCHEMA audit;
CREATE TABLE parents (a int, b int, name varchar(20) UNIQUE, PRIMARY KEY (b, a));
CREATE TABLE "Kids" (id int PRIMARY KEY, x int, y int, twice int GENERATED ALWAYS AS (x * 2) STORED,
    FOREIGN KEY (y, x) REFERENCES parents (b, a));
CREATE TABLE parts (k int, kid int REFERENCES "Kids") PARTITION BY LIST (k);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);
CREATE TABLE audit.parts (k int);
CREATE TYPE mood AS ENUM ('good');
CREATE TABLE moody (m mood NOT NULL);
CREATE VIEW v AS SELECT 1;
"""


@pytest.fixture
def tables(make_database: Callable[[str], str]) -> Iterator[dict[str, Table]]:
    """Read them from a fresh database."""
    with psycopg.connect(make_database(SCHEMA)) as session:
        yield read_tables(session)


def test_tables_are_read_with_their_keys(tables: dict[str, Table]) -> None:
    """In the keys' order; parts, views and generated columns are not there."""
    assert set(tables) == {"public.parents", "public.Kids", "public.parts", "audit.parts", "public.moody"}
    kids = tables["public.Kids"]
    assert kids.column_names == ("id", "x", "y")
    assert kids.references == (Reference(("y", "x"), "public.parents", ("b", "a")),)
    assert tables["public.parents"].primary_key == ("b", "a")
    assert tables["public.parts"].partitioned
    assert tables["public.parts"].references == (Reference(("kid",), "public.Kids", ("id",)),)
    assert tables["public.parents"].column("name") == Column(
        "public.parents.name", "character varying(20)", nullable=True, unique=True, width=20
    )
    assert tables["public.moody"].column("m").type_name == "public.mood"


def test_people_may_leave_the_schema_out(tables: dict[str, Table]) -> None:
    """Where there is one table of that name; else they are told what there is."""
    assert find_table(tables, "Kids").full_name == "public.Kids"
    assert find_column(tables, "audit.parts.k").name == "audit.parts.k"
    for name, message in (
        ("parts", "audit.parts, public.parts: write it with its schema"),
        ("nothing", "production does not have; there are: audit.parts"),
    ):
        with pytest.raises(ConfigError, match=message):
            find_table(tables, name)
    for name, message in (("Kids.z", "no column 'z'; there are: id, x, y"), ("z", "names no column")):
        with pytest.raises(ConfigError, match=message):
            find_column(tables, name)
