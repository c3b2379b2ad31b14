"""Build the shadow of a store, and prove that its login cannot reach production.

Everything comes from perflab.toml: production from the store's 'production', the shadow's name, login and
password from its 'shadow'. A superuser's login is given by reference. What would be changed is shown first,
and asked: on a terminal by y/N, else by --yes; without either nothing is changed, and the exit code is 2.

Repeatable: a shadow that is there keeps its rows; --refresh builds it anew.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, replace
from typing import Any

from perflab.config import Store, Target
from perflab.errors import ConfigError
from perflab.shadow.prepare import Plan, Wish, plan_postgresql, prepare
from perflab.shadow.prepare.login import SETTINGS
from perflab.shadow.stores import place

from ._otherkinds import prepare_other
from ._stores import (
    add_login_arguments,
    add_store_arguments,
    ask,
    choose_store,
    mask_key,
    read_login,
    read_sample,
    read_target,
    read_unmasked,
    require_login,
)

METHODS = ("revoke", "hba", "separate", "make")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what it takes."""
    add_store_arguments(parser)
    add_login_arguments(parser, "admin", "the URL of a superuser of the shadow's server")
    add_login_arguments(
        parser,
        "source",
        "the URL of a login that may read production, where that is another server or a replica",
    )
    parser.add_argument(
        "--how",
        choices=("schema", "copy"),
        default="schema",
        help="schema (default): while production is in use; copy: all rows, while nobody is connected to it",
    )
    parser.add_argument(
        "--yes",
        choices=METHODS,
        metavar="METHOD",
        help="agree beforehand. PostgreSQL: revoke, hba or separate, by which the login is kept out of"
        " production; other kinds: make",
    )
    parser.add_argument(
        "--rows", type=int, metavar="N", help="newest rows of each table; default: sample.rows"
    )
    parser.add_argument(
        "--unmasked",
        default="",
        metavar="T.C,...",
        help="columns that look personal and may be copied as they are",
    )
    parser.add_argument(
        "--limit", type=int, metavar="N", help="most sessions; default: a quarter of the server's"
    )
    for name in SETTINGS:
        parser.add_argument(
            f"--{name.replace('_', '-')}", metavar="TIME", help=f"set {name} for the login, as 30s"
        )
    parser.add_argument(
        "--like",
        default="",
        metavar="ROLE",
        help="an application's login whose settings (search_path) it gets",
    )
    parser.add_argument("--refresh", action="store_true", help="build anew a shadow that is there")
    parser.add_argument("--dry-run", action="store_true", help="show what would be done and change nothing")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Prepare one store."""
    target = read_target(arguments)
    store = choose_store(target, arguments.store)
    if store.kind == "postgresql" and store.mode == "database":
        return _postgresql(arguments, target, store)
    return prepare_other(arguments, target, store)


def _postgresql(arguments: argparse.Namespace, target: Target, store: Store) -> int:
    wish = _wish(arguments, target, store)
    plan = plan_postgresql(wish)
    shown = sys.stderr if arguments.json else sys.stdout
    for line in _plan_lines(wish, plan):
        print(line, file=shown)
    if arguments.dry_run:
        if arguments.json:
            print(json.dumps(_plan_json(plan), ensure_ascii=False))
        return 0
    keep_out = plan.keep_out or _choice(plan)
    if not keep_out:
        print(f"perflab: nothing was changed; {plan.question} with --yes METHOD", file=sys.stderr)
        return 2
    if not plan.keep_out:
        wish = replace(wish, keep_out=keep_out)
    made = prepare(wish, lambda line: print(line, file=sys.stderr))
    if arguments.json:
        print(json.dumps(asdict(made), ensure_ascii=False))
        return 0
    print(f"{made.shadow} is {'made' if made.created else 'as it was'}; {made.role} may enter nothing else:")
    for where, words in made.refused.items():
        print(f"  {where}: {words}")
    if made.rows:
        print(f"{sum(made.rows.values())} rows of {len(made.rows)} tables copied")
    for what in made.stripped:
        print(f"left out: {what}")
    for what in made.warnings:
        print(f"note: {what}")
    return 0


def _wish(arguments: argparse.Namespace, target: Target, store: Store) -> Wish:
    """Put together what the store, the target and the command line say."""
    production, shadow = place(store.production), place(store.shadow.read())
    sample = read_sample(arguments, store)
    if arguments.yes == "make":
        raise ConfigError("--yes make is for other kinds; for PostgreSQL choose revoke, hba or separate")
    source = read_login(arguments, "source")
    if not source and not production.same_server(shadow):
        source = require_login(
            arguments, "source", f"production is on {production.host}:{production.port}, which needs a login"
        )
    return Wish(
        admin_dsn=require_login(arguments, "admin", "a shadow is made by a superuser"),
        production=production.database,
        shadow=shadow.database,
        role=shadow.user,
        password=shadow.password,
        source_dsn=source,
        production_url=store.production,
        how=arguments.how,
        keep_out=arguments.yes or "",
        limit=arguments.limit,
        settings={name: value for name in SETTINGS if (value := getattr(arguments, name)) is not None},
        like=arguments.like,
        sample=sample,
        unmasked=read_unmasked(arguments),
        mask_key=mask_key(target, sample),
        refresh=arguments.refresh,
    )


def _choice(plan: Plan) -> Any:
    """Ask by what the login shall be kept out; "" when nobody says."""
    if plan.separate:
        return "separate" if ask("make the shadow?", ("y",)) else ""
    return ask("keep it out by", ("revoke", "hba"))


def _plan_lines(wish: Wish, plan: Plan) -> list[str]:
    """Say what would be done, and between what there is to choose."""
    how = "by pg_dump, while production is in use" if wish.how == "schema" else "with all rows, unmasked"
    done = (
        f"build {wish.shadow} of {wish.production} {how}"
        if plan.build
        else f"keep {wish.shadow} and its rows"
    )
    lines = [
        f"{'drop and ' if plan.build and plan.exists else ''}{done}",
        f"login {wish.role}: at most {plan.limit} sessions, no powers, no groups"
        + "".join(f", {name} {value}" for name, value in wish.settings.items()),
    ]
    if plan.sample is not None and plan.sample.wanted:
        lines += [
            f"rows of {name}: {'all' if rows is None else f'the newest {rows}'}, and those they refer to"
            for name, rows in plan.sample.wanted.items()
        ]
        lines += [
            f"masked: {name} by {kind.partition(':')[0]}" for name, (kind, _) in plan.sample.masks.items()
        ]
        lines += [f"copied as it is: {name}" for name in wish.unmasked]
    lines += [f"extension {name} is not on the shadow's server: left out" for name in plan.missing_extensions]
    if plan.separate:
        return [*lines, "separate: the shadow has a server of its own; nothing is changed on production's"]
    lines.append(
        f"hba: put above line {plan.host_rules.above} of {plan.host_rules.path} on the server's machine"
    )
    lines += [f"    {line}" for line in plan.host_rules.lines]
    lines.append(
        "    now: "
        + (plan.host_rules.gap or "they are there")
        + "; then the server re-reads it (pg_reload_conf)"
    )
    lines.append("revoke: roles made later will need GRANT CONNECT ON DATABASE ... of their own")
    lines += [f"    {statement};" for statement in plan.closing_statements] or ["    (nothing left to do)"]
    lines.append("separate: give the shadow's URL another server, and --source-env for production's")
    return lines


def _plan_json(plan: Plan) -> dict[str, Any]:
    return {
        "build": plan.build,
        "separate": plan.separate,
        "keep_out": plan.keep_out,
        "limit": plan.limit,
        "revoke": list(plan.closing_statements),
        "hba": {
            "file": plan.host_rules.path,
            "lines": list(plan.host_rules.lines),
            "gap": plan.host_rules.gap,
        },
        "missing_extensions": list(plan.missing_extensions),
        "rows": {} if plan.sample is None else plan.sample.wanted,
    }
