"""Kinds where there is nothing to choose: --yes make agrees."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import psycopg
import pytest


def test_redis_and_sqlite_are_prepared_too(perflab, site, tmp_path):
    """Where there is nothing to choose, --yes make agrees."""
    redis = ("shadow", "prepare", "--store", "cache", "--admin-env", "REDIS_ADMIN")
    assert perflab(*redis, **site.environment).returncode == 2
    done = perflab(*redis, "--yes", "make", "--json", **site.environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["prefix"] == "sh:"

    file = ("shadow", "prepare", "--store", "file")
    assert perflab(*file, **site.environment).returncode == 2
    assert perflab(*file, "--yes", "make", "--dry-run", **site.environment).returncode == 0
    assert not (tmp_path / "shadow.db").exists()
    done = perflab(*file, "--yes", "make", **site.environment)
    assert done.returncode == 0, done.stderr
    with closing(sqlite3.connect(tmp_path / "shadow.db")) as session:
        assert session.execute("SELECT count(*) FROM t").fetchone() == (0,)


def test_redis_and_sqlite_are_dropped_too(perflab, site, tmp_path):
    """The user with its keys, the file with what lies beside it."""
    for words in (("cache", "--admin-env", "REDIS_ADMIN"), ("file",)):
        made = perflab("shadow", "prepare", "--yes", "make", "--store", *words, **site.environment)
        assert made.returncode == 0, made.stderr
        done = perflab("shadow", "drop", "--yes", "--store", *words, **site.environment)
        assert done.returncode == 0, done.stderr
        assert "done: " in done.stdout
    assert not list(tmp_path.glob("shadow*"))


def test_what_cannot_be_prepared_is_told(perflab, site, tmp_path):
    """A store that is denied has no shadow; a choice of PostgreSQL's is none here."""
    path = tmp_path / "perflab.toml"
    path.write_text(path.read_text() + 'mode = "deny"\n')
    for verb in ("prepare", "drop"):
        done = perflab("shadow", verb, "--store", "file", **site.environment)
        assert done.returncode == 2
        assert "has the mode 'deny'" in done.stderr
    words = ("shadow", "prepare", "--store", "cache", "--admin-env", "REDIS_ADMIN", "--yes", "revoke")
    assert "here it is --yes make" in perflab(*words, **site.environment).stderr


@pytest.fixture(params=[("schema", "shadow", "shadow.people"), ("table", "shadow_", "public.shadow_people")])
def beside(request, site, tmp_path):
    """Have the shadow of ``orders`` beside production's tables; return where, and its login's URL."""
    mode, within, table = request.param
    path = tmp_path / "perflab.toml"
    more = f'name = "orders"\nmode = "{mode}"\nwithin = "{within}"\n'
    path.write_text(path.read_text().replace('name = "orders"\n', more))
    url = site.postgres.dsn("shop", "beside_role", "secret")
    return table, url, {**site.environment, "SHADOW_URL": url}


def test_shadow_tables_beside_productions_are_prepared_and_dropped(perflab, site, beside):
    """Shown first, then made; the login may write there and not in production; and all of it goes again."""
    table, url, environment = beside
    words = ("--store", "orders", "--admin-env", "ADMIN_URL")
    # When it is only shown, nothing is made
    done = perflab("shadow", "prepare", *words, "--dry-run", **environment)
    assert (done.returncode, "weaker than a database of its own" in done.stdout) == (0, True), done.stderr
    assert perflab("shadow", "prepare", *words, **environment).returncode == 2
    assert roles(site) == []
    # When it is agreed to, the tables are there, empty, and again with their rows
    for _ in range(2):
        done = perflab("shadow", "prepare", *words, "--yes", "make", "--json", **environment)
        assert done.returncode == 0, done.stderr
        assert table.removeprefix("public.") in str(json.loads(done.stdout)["tables"]).replace('"', "")
        with psycopg.connect(url) as session:
            session.execute(f"INSERT INTO {table} (email) VALUES ('shadow')".encode())
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute("INSERT INTO public.people (email) VALUES ('shadow')")
    assert ask(site, f"SELECT count(*) FROM {table}") in ([(0,)], [(1,)])
    done = perflab("shadow", "status", "--store", "orders", **environment)
    assert "rewriting alone keeps it apart" in done.stdout + done.stderr
    # When it is dropped, production is as it was
    done = perflab("shadow", "drop", *words, "--yes", **environment)
    assert done.returncode == 0, done.stderr
    assert roles(site) == []
    assert ask(site, "SELECT to_regclass(%s)", table) == [(None,)]
    assert ask(site, "SELECT email FROM people") == [("ada@corp.example",)]


def ask(site, text, *values):
    with psycopg.connect(site.postgres.admin_dsn.rpartition("/")[0] + "/shop") as session:
        return session.execute(text, values).fetchall()


def roles(site):
    return ask(site, "SELECT rolname FROM pg_roles WHERE rolname = 'beside_role'")


def test_shadow_tables_of_mariadb_are_told_how_to_make_by_hand(perflab, site, tmp_path):
    """Nothing is made: the refusal says which statements do it."""
    (tmp_path / "perflab.toml").write_text(f"""
[targets.shop]
addresses = ["127.0.0.1:9"]
control = "control.json"
control_key = {{ env = "CONTROL_KEY" }}

[[targets.shop.stores]]
name = "orders"
kind = "mariadb"
mode = "table"
within = "shadow_"
production = "mariadb://127.0.0.1:{site.postgres.port}/shop"
shadow = {{ env = "SHADOW_URL" }}
""")
    environment = {**site.environment, "SHADOW_URL": "mariadb://shadow_login:secret@127.0.0.1:1/shop"}
    for verb in ("prepare", "drop"):
        done = perflab("shadow", verb, "--admin-env", "ADMIN_URL", **environment)
        assert done.returncode == 2, done.stderr
        assert "CREATE TABLE shadow_t LIKE t" in done.stderr
        assert "GRANT SELECT, INSERT, UPDATE, DELETE ON shop.shadow_t TO shadow_login" in done.stderr
