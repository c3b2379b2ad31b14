"""Prepare and drop shadows where there is nothing to choose: Redis, MariaDB, SQLite, tables in production.

What each kind needs is imported when it is used: a part that is not installed costs only its own kind.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from types import ModuleType
from typing import Any

from perflab.config import Store, Target
from perflab.errors import ConfigError
from perflab.shadow.prepare import drop_redis, prepare_redis
from perflab.shadow.prepare.personal import mariadb_columns, require_declared
from perflab.shadow.prepare.sqlitefile import drop_sqlite, prepare_sqlite
from perflab.shadow.stores import place

from ._stores import ask, mask_key, read_login, read_sample, read_unmasked, require_login

Would = tuple[Sequence[str], Callable[[], Sequence[str]]]


def prepare_other(arguments: argparse.Namespace, target: Target, store: Store) -> int:
    """Prepare a store of another kind or mode than a PostgreSQL database of its own.

    Parameters
    ----------
    arguments : Namespace
        The verb's.
    target, store : Target, Store
        From ``perflab.toml``.

    Returns
    -------
    int
        The exit code: 2 when nobody agreed.

    Raises
    ------
    ConfigError
        If the store cannot be prepared.
    """
    if store.mode == "deny":
        raise ConfigError(f"store {store.name!r} has the mode 'deny': it needs no shadow")
    if arguments.yes not in (None, "make"):
        raise ConfigError(f"--yes {arguments.yes} is for PostgreSQL databases; here it is --yes make")
    what, make = _making(arguments, target, store)
    print(what, file=sys.stderr if arguments.json else sys.stdout)
    if arguments.dry_run:
        return 0
    if arguments.yes != "make" and not ask("make it?", ("y",)):
        print("perflab: nothing was changed; agree with --yes make", file=sys.stderr)
        return 2
    made = asdict(make())
    if arguments.json:
        print(json.dumps(made, ensure_ascii=False))
        return 0
    print(f"{store.name} is prepared")
    for name, value in made.items():
        if value not in (None, "", [], (), {}):
            print(f"  {name.replace('_', ' ')}: {_plain(value)}")
    return 0


def dropping_other(arguments: argparse.Namespace, store: Store) -> Would:
    """Tell what would go, and return what lets it go.

    Raises
    ------
    ConfigError
        If the store has no shadow that could be dropped.
    """
    if store.mode == "deny":
        raise ConfigError(f"store {store.name!r} has the mode 'deny': it has no shadow")
    shadow = place(store.shadow.read())
    if store.kind == "sqlite":
        return drop_sqlite(shadow.database, only_look=True), lambda: drop_sqlite(shadow.database)
    admin = require_login(arguments, "admin", "a shadow is dropped by who may make it")
    if store.kind == "redis":
        would = (f"user {shadow.user}", f"every key that begins with {store.prefix}")
        return would, lambda: drop_redis(admin, shadow.user, store.prefix)
    if store.mode in ("schema", "table"):
        tables, room = _tables(store)
        would = (
            f"the shadow tables of {shadow.database} in {store.mode} {store.within}",
            f"role {shadow.user}",
        )
        return would, lambda: tuple(tables.drop_tables(admin, room, shadow.user) or would)
    kind = _module("mariadb")
    would = (f"database {shadow.database}", f"login {shadow.user}")
    return would, lambda: tuple(kind.drop_mariadb(admin, shadow.database, shadow.user))


def _making(arguments: argparse.Namespace, target: Target, store: Store) -> tuple[str, Callable[[], Any]]:
    """Say what is made, and return what makes it."""
    shadow, production = place(store.shadow.read()), place(store.production)
    sample = read_sample(arguments, store)
    if store.kind == "sqlite":
        return (
            f"make the file {shadow.database} with the schema of {production.database}",
            lambda: prepare_sqlite(
                production.database,
                shadow.database,
                sample=sample,
                unmasked=read_unmasked(arguments),
                mask_key=mask_key(target, sample),
                refresh=arguments.refresh,
            ),
        )
    admin = require_login(arguments, "admin", "a shadow is made by an administrator")
    if store.kind == "redis":
        return f"make the Redis user {shadow.user}, confined to keys {store.prefix}*", lambda: prepare_redis(
            admin, shadow.user, shadow.password, store.prefix
        )
    if store.mode in ("schema", "table"):
        tables, room = _tables(store)
        what = (
            f"make tables in {store.mode} {store.within} of {shadow.database}, and the login {shadow.user};"
        )
        return (
            f"{what} weaker than a database of its own, and empty: no rows are copied in this mode",
            lambda: tables.prepare_tables(admin, room, shadow.user, shadow.password, *_limit(arguments)),
        )
    kind = _module("mariadb")
    source = read_login(arguments, "source")
    apart = {"shadow_admin_url": admin} if source else {}
    rows = {} if sample is None else {"rows": sample.rows, "masks": sample.masks}
    if sample is not None and sample.rows:
        said = [*sample.masks, *read_unmasked(arguments)]
        require_declared(mariadb_columns(source or admin, production.database), said)
    return (
        f"make the database {shadow.database} of {production.database}, and the login {shadow.user}",
        lambda: kind.prepare_mariadb(
            source or admin,
            production.database,
            shadow.database,
            shadow.user,
            shadow.password,
            *_limit(arguments),
            **rows,
            **apart,
        ),
    )


def _limit(arguments: argparse.Namespace) -> tuple[int, ...]:
    return () if arguments.limit is None else (arguments.limit,)


def _tables(store: Store) -> tuple[ModuleType, Any]:
    """Return what prepares tables beside production's, and where they are."""
    if store.kind != "postgresql":
        raise ConfigError(_by_hand(store))
    try:
        room = importlib.import_module("perflab.shadow.sql.rewrite_room")
    except ImportError as error:
        raise ConfigError(f"this version cannot prepare stores in mode {store.mode!r}") from error
    database = place(store.production).database
    return _module("shadowtables"), room.Room(store.kind, store.mode, store.within, database)


def _by_hand(store: Store) -> str:
    """Say how shadow tables are made that are not made here."""
    database, login = place(store.production).database, place(store.shadow.read()).user
    return (
        f"{store.kind} in mode {store.mode!r} is not prepared by perflab. By hand, for each table t of"
        f" {database}: CREATE TABLE {store.within}t LIKE t; give it a sequence of its own where a default"
        " draws from one, and foreign keys to shadow tables (LIKE leaves them out);"
        f" GRANT SELECT, INSERT, UPDATE, DELETE ON {database}.{store.within}t TO {login}, and nothing else:"
        " then the server keeps that login from production's tables. Mode 'database' is prepared and stronger"
    )


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(f"perflab.shadow.prepare.{name}")
    except ImportError as error:
        raise ConfigError(
            f"this version cannot prepare that kind ({error}); make the shadow by hand"
        ) from error


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name}: {text}" for name, text in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
