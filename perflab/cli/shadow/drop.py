"""Take a shadow away, and everything that was done for it: shown first, and asked.

Only what 'perflab shadow prepare' made is ever dropped. --yes agrees beforehand; without it and without a
terminal nothing is changed, and the exit code is 2.
"""

from __future__ import annotations

import argparse
import json
import sys

from perflab.config import Store
from perflab.shadow.prepare import drop_postgresql
from perflab.shadow.stores import place

from ._otherkinds import Would, dropping_other
from ._stores import add_login_arguments, add_store_arguments, ask, choose_store, read_target, require_login


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what it takes."""
    add_store_arguments(parser)
    add_login_arguments(parser, "admin", "the URL of a superuser of the shadow's server")
    parser.add_argument("--yes", action="store_true", help="agree beforehand")
    parser.add_argument("--json", action="store_true", help="print what was dropped as one JSON array")


def run(arguments: argparse.Namespace) -> int:
    """Drop one store's shadow."""
    store = choose_store(read_target(arguments), arguments.store)
    would, drop = _plan(arguments, store)
    shown = sys.stderr if arguments.json else sys.stdout
    for what in would:
        print(f"would go: {what}", file=shown)
    if would and not arguments.yes and not ask("drop it?", ("y",)):
        print("perflab: nothing was changed; agree with --yes", file=sys.stderr)
        return 2
    done = list(drop()) if would else []
    if arguments.json:
        print(json.dumps(done, ensure_ascii=False))
    else:
        for what in done:
            print(f"done: {what}")
        if not would:
            print(f"{store.name} has no shadow")
    return 0


def _plan(arguments: argparse.Namespace, store: Store) -> Would:
    """Return what would go, and what lets it go."""
    if store.kind != "postgresql" or store.mode != "database":
        return dropping_other(arguments, store)
    shadow = place(store.shadow.read())
    admin = require_login(arguments, "admin", "a shadow is dropped by who may make it")
    return (
        drop_postgresql(admin, shadow.database, shadow.user, only_look=True),
        lambda: drop_postgresql(admin, shadow.database, shadow.user),
    )
