"""Shadows of a production in use: built, kept, built anew, dropped; production goes on meanwhile."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from live_production import wish, writers
from prepared_server import enter, rights, url_of

from perflab.demo.stores import PostgresServer
from perflab.errors import ConfigError, ShadowError
from perflab.shadow.prepare import drop_postgresql, plan_postgresql, prepare
from perflab.shadow.prepare.fingerprint import differences, read_schema
from perflab.shadow.prepare.session import open_session, read_notes, write_notes


def test_a_shadow_is_built_while_production_is_written(live: PostgresServer) -> None:
    """Writers and an open transaction go on; the schema is production's, without its rows."""
    # When
    with writers(live) as written:
        before = sum(written)
        made = prepare(wish(live, keep_out="revoke"))
        during = sum(written) - before

    # Then
    assert during > 0
    assert made.created
    assert set(made.refused) == {"shop", "postgres", "template1"}
    assert "event trigger watcher" in made.stripped
    with closing(open_session(url_of(live, "shop"))) as one, enter(live, "shop_shadow") as two:
        assert differences(read_schema(one), read_schema(two)) == []
        assert two.execute("SELECT count(*) FROM people").fetchone() == (0,)
        # a view that is filled can be read; defaults are the shadow's own sequences
        assert two.execute("SELECT * FROM frozen").fetchone() == (0,)
        assert two.execute("INSERT INTO people (email) VALUES ('x') RETURNING id").fetchone() == (
            1_000_000_041,
        )
        assert two.execute("INSERT INTO small DEFAULT VALUES RETURNING n").fetchone() == (-1_000_000_002,)
        assert one.execute("SELECT max(id) FROM people").fetchone() == (40,)


def test_preparing_twice_changes_nothing(live: PostgresServer) -> None:
    """Rows written by shadow work stay; --refresh builds anew."""
    # Given
    prepare(wish(live, keep_out="revoke"))
    state = rights(live)
    with enter(live, "shop_shadow") as session:
        session.execute("INSERT INTO clicks DEFAULT VALUES")

    # When
    made = prepare(wish(live))

    # Then
    assert rights(live) == state
    assert (made.created, made.sequences, made.kept_out) == (False, 0, "revoke")
    with enter(live, "shop_shadow") as session:
        assert session.execute("SELECT count(*) FROM clicks").fetchone() == (1,)
    with enter(live, "shop_shadow"):  # somebody is inside
        assert prepare(wish(live, refresh=True)).created
    with enter(live, "shop_shadow") as session:
        assert session.execute("SELECT count(*) FROM clicks").fetchone() == (0,)


def test_nothing_is_changed_before_somebody_chose(live: PostgresServer) -> None:
    """The question says what each choice takes."""
    before = rights(live)
    plan = plan_postgresql(wish(live))
    assert plan.keep_out == ""
    assert 'REVOKE CONNECT, TEMPORARY ON DATABASE "shop" FROM PUBLIC' in plan.closing_statements
    with pytest.raises(ConfigError, match="'revoke' takes CONNECT on postgres, shop, template1 from PUBLIC"):
        prepare(wish(live))
    assert rights(live) == before


def test_a_database_opened_since_is_asked_about_again(live: PostgresServer) -> None:
    """What was agreed to does not cover a database that came later."""
    # Given
    prepare(wish(live, keep_out="revoke"))
    with closing(open_session(live.admin_dsn)) as session:
        session.execute("CREATE DATABASE later")
        try:
            # Then
            with pytest.raises(ConfigError, match="takes CONNECT on later from PUBLIC"):
                prepare(wish(live))
            assert set(prepare(wish(live, keep_out="revoke")).closed) == {
                "later",
                "postgres",
                "shop",
                "template1",
            }
        finally:
            session.execute("DROP DATABASE later")


def test_without_a_fitting_pg_dump_nothing_is_made(live: PostgresServer, tmp_path: Path) -> None:
    """The refusal says which version is needed."""
    before = rights(live)
    with pytest.raises(ShadowError, match=r"pg_dump and pg_restore of version 18 or newer; found: none"):
        prepare(wish(live, keep_out="revoke", programs=[tmp_path]))
    assert rights(live) == before


def test_a_failed_dump_leaves_the_shadow_there_is(live: PostgresServer) -> None:
    """It is read before the old one goes."""
    prepare(wish(live, keep_out="revoke"))
    with enter(live, "shop_shadow") as session:
        session.execute("INSERT INTO clicks DEFAULT VALUES")
    with psycopg.connect(url_of(live, "shop")) as holder:
        holder.execute("LOCK TABLE people IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(ShadowError, match="cannot read the schema"):
            prepare(wish(live, refresh=True))
    with enter(live, "shop_shadow") as session:
        assert session.execute("SELECT count(*) FROM clicks").fetchone() == (1,)


def test_what_was_begun_and_not_finished_is_built_anew(live: PostgresServer) -> None:
    """A shadow marked as unfinished is not taken for a good one."""
    prepare(wish(live, keep_out="revoke"))
    with closing(open_session(live.admin_dsn)) as session:
        write_notes(session, "shop_shadow", {"of": "shop", "state": "building"})
        assert prepare(wish(live)).created
        notes = read_notes(session, "shop_shadow")
    assert notes is not None
    assert "state" not in notes


def test_somebody_elses_database_or_role_is_refused(live: PostgresServer) -> None:
    """Before anything is asked or made; so is a login without a password."""
    with pytest.raises(ShadowError, match="a database 'postgres' exists and was not made by perflab"):
        plan_postgresql(wish(live, shadow="postgres"))
    with pytest.raises(ShadowError, match="a role 'app' exists and was not made by perflab"):
        plan_postgresql(wish(live, role="app"))
    with pytest.raises(ConfigError, match="has no password"):
        plan_postgresql(wish(live, password=""))


def test_a_copy_takes_all_rows_and_no_masks(live: PostgresServer) -> None:
    """So a masked sample cannot be one."""
    from perflab.config import Sample

    with pytest.raises(ConfigError, match="takes all rows as they are"):
        plan_postgresql(wish(live, how="copy", sample=Sample(rows=1)))


def test_dropping_shows_first_what_would_go(live: PostgresServer) -> None:
    """And then exactly that goes."""
    before = rights(live)
    prepare(replace(wish(live), keep_out="revoke"))
    state = rights(live)
    would = drop_postgresql(live.admin_dsn, "shop_shadow", "shop_shadow", only_look=True)
    assert rights(live) == state
    assert drop_postgresql(live.admin_dsn, "shop_shadow", "shop_shadow") == would
    assert would[0] == "database shop_shadow"
    assert rights(live) == before
