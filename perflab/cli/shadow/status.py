"""Look at the shadows of a target: there, ours, confined, apart, and with production's schema.

Only the shadows' own logins are used. With --admin-env, or a store's 'audit', production's schema and
sequences are compared, too. The exit code is 1 when something is not as it must be.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from perflab.config import Store
from perflab.shadow.prepare.sqlitefile import look_at_sqlite
from perflab.shadow.prepare.standing import Check, look_at_postgresql
from perflab.shadow.refusal import try_mariadb, try_redis, with_login
from perflab.shadow.stores import place

from ._stores import add_login_arguments, add_store_arguments, choose_stores, read_login, read_target

_SIGNS = {"good": "ok", "bad": "NOT AS IT MUST BE", "unknown": "cannot say"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what it takes."""
    add_store_arguments(parser)
    add_login_arguments(
        parser, "admin", "the URL of a login that may read production; default: the store's audit"
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object: store -> what was looked at"
    )


def run(arguments: argparse.Namespace) -> int:
    """Look at each store."""
    stores = choose_stores(read_target(arguments), arguments.store)
    admin = read_login(arguments, "admin")
    found = {store.name: _look(store, admin) for store in stores}
    if arguments.json:
        print(
            json.dumps(
                {name: [asdict(c) for c in checks] for name, checks in found.items()}, ensure_ascii=False
            )
        )
    else:
        for name, checks in found.items():
            print(name)
            width = max(len(check.what) for check in checks)
            for check in checks:
                sign = "" if check.state == "good" else f"{_SIGNS[check.state]}: "
                print(f"  {check.what:<{width}}  {sign}{check.text}")
    return int(any(check.state == "bad" for checks in found.values() for check in checks))


def _look(store: Store, admin: str) -> list[Check]:
    if store.mode == "deny":
        return [Check("there", "good", "shadow work may not touch this store at all")]
    shadow = store.shadow.read()
    if store.kind == "postgresql" and store.mode == "database":
        reader = admin or (store.audit.read() if store.audit else "")
        return look_at_postgresql(store.production, shadow, reader)
    if store.kind == "redis":
        answer = try_redis(with_login(store.production, shadow))
        if answer.unclear:
            return [Check("confined", "unknown", answer.unclear)]
        return [Check("confined", "good" if answer.kept_out else "bad", answer.how)]
    if store.kind == "mariadb" and store.mode == "database":
        return _mariadb(store.production, shadow)
    if store.kind == "sqlite":
        return look_at_sqlite(place(store.production).database, place(shadow).database)
    text = f"mode {store.mode!r}: the login enters production's database, rewriting alone keeps it apart"
    return [Check("confined", "unknown", text)]


def _mariadb(production: str, shadow: str) -> list[Check]:
    """Knock at the shadow, which must let its login in, and at production, which must not."""
    own, there = try_mariadb(shadow), try_mariadb(with_login(production, shadow))
    if own.refused or own.unclear:
        return [Check("there", "bad", f"its login cannot enter it: {own.unclear or own.how}")]
    checks = [Check("there", "good", f"{place(shadow).user} enters {place(shadow).database}")]
    if there.unclear:
        return [*checks, Check("confined", "unknown", there.unclear)]
    return [*checks, Check("confined", "good" if there.kept_out else "bad", there.how)]
