"""Build a PostgreSQL shadow, prove it cut off, and take it away again.

`plan_postgresql` only looks; what it plans can be shown to the person who answers for the server. How the
login is kept out of production (a server apart, rules of ``pg_hba.conf``, or privileges taken from PUBLIC) is
that person's choice: without it nothing is changed.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any

from perflab.errors import ConfigError, ShadowError

from . import proof
from .databaseaccess import close_databases, read_mark, reopen_databases, write_mark
from .dumping import Restored, dump_schema, find_programs, restore_schema
from .fingerprint import fingerprint, read_schema
from .hostrules import HostRules, put_in_force, read_host_rules
from .login import make_role, require_ours, take_settings
from .sampling import Plan as SamplePlan
from .sampling import copy_sample
from .session import BUILDING, database_comment, open_session, said, write_notes
from .shadowdatabase import (
    REACHING_OUT,
    copy_settings,
    offset_sequences,
    own_everything,
    pass_rows,
    refresh_views,
    strip,
    untrusted_routines,
)
from .wish import Plan, Prepared, Tell, Wish, look

if TYPE_CHECKING:
    import psycopg

SEQUENCE_OFFSET = 1_000_000_000


def plan_postgresql(wish: Wish) -> Plan:
    """Tell what `prepare` would do, changing nothing.

    Raises
    ------
    ConfigError
        If what is wished for cannot be.
    ShadowError
        If a database or role of that name is somebody else's, or a server does not answer.
    """
    with _sessions(wish) as (session, source):
        return look(wish, session, source)


def prepare(wish: Wish, tell: Tell = lambda _: None) -> Prepared:
    """Make, or bring up to date, a shadow database and the login that is confined to it.

    Repeatable: a shadow that is there keeps its rows unless ``wish.refresh``; login, ownership and refusals
    are made again.

    Raises
    ------
    ConfigError
        If what is wished for cannot be, or nobody chose by what the login is kept out.
    ShadowError
        If something of that name is somebody else's, production cannot be copied, or some database let the
        login in (it is then switched off).
    """
    with _sessions(wish) as (session, source):
        plan = look(wish, session, source)
        if not plan.keep_out:
            raise ConfigError(plan.question)
        if plan.keep_out == "hba" and plan.host_rules.gap:
            raise ConfigError(_hba_help(plan.host_rules))
        programs, dump = None, b""
        if plan.build and wish.how == "schema":
            programs = find_programs(source.info.server_version // 10_000, wish.programs)
            tell(f"reading production's schema with pg_dump {programs.major}")
            dump = dump_schema(programs, wish.source_dsn or wish.admin_dsn, wish.production)
        schema = _production_schema(wish) if plan.build or plan.taken_over else ""
        make_role(session, wish.role, wish.shadow, wish.password, plan.limit, wish.settings)
        if plan.build:
            _create(session, source, wish, plan, tell)
        if plan.keep_out == "revoke":
            keep = {wish.production: tuple(wish.app_roles)}
            closed = close_databases(session, wish.shadow, wish.role, plan.closed, keep)
        else:
            closed = plan.closed
            mark = {"shadow": wish.shadow, "closed": closed, "kept_out": plan.keep_out}
            write_mark(session, wish.role, mark)  # type: ignore[arg-type]  # mypy sees a plain dict
        with closing(open_session(wish.admin_dsn, wish.shadow)) as inside:
            restored = Restored((), ())
            if programs is not None:
                tell("building the schema")
                left_out = [*REACHING_OUT, *plan.missing_extensions]
                restored = restore_schema(programs, wish.admin_dsn, wish.shadow, dump, left_out)
            made = _furnish(inside, source, wish, plan, restored, tell)
        made["warnings"] += copy_settings(session, wish.production, wish.shadow, source)
        made["warnings"] += take_settings(
            session, source, (wish.like, wish.production), (wish.role, wish.shadow)
        )
        if plan.build or plan.taken_over:
            _note(session, wish, plan, schema, made)
        refused = _prove(session, source, wish, plan, tell)
    return Prepared(
        shadow=wish.shadow,
        role=wish.role,
        created=plan.build or plan.taken_over,
        refused=refused,
        closed=tuple(sorted(closed)),
        stripped=tuple(made["stripped"]),
        sequences=made["sequences"],
        rows=made["rows"],
        limit=plan.limit,
        kept_out=plan.keep_out,
        warnings=tuple(made["warnings"]),
    )


def drop_postgresql(admin_dsn: str, shadow: str, role: str, *, only_look: bool = False) -> tuple[str, ...]:
    """Drop a shadow database and its login, and give PUBLIC back what was taken from it.

    Parameters
    ----------
    admin_dsn : str
        A superuser's login on the server.
    shadow, role : str
        What `prepare` was given. What is not there is passed over.
    only_look : bool
        Tell what would be dropped, and change nothing.

    Returns
    -------
    tuple of str
        What was dropped and reopened. While another shadow role exists, databases stay closed; the
        last one to go reopens them.

    Raises
    ------
    ShadowError
        If either was not made by `prepare`: nothing is dropped then.
    """
    import psycopg
    from psycopg import sql

    done: list[str] = []
    try:
        with closing(open_session(admin_dsn, "postgres")) as session:
            require_ours(session, shadow, role)
            if database_comment(session, shadow) is not None:
                if not only_look:
                    session.execute(
                        sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(shadow))
                    )
                done.append(f"database {shadow}")
            mark = read_mark(session, role)
            if mark is not None:
                done += reopen_databases(session, role, mark, only_look=only_look)
                if not only_look:
                    session.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))
                done.append(f"role {role}")
                if mark.get("kept_out") == "hba":
                    rules = read_host_rules(session, shadow, role)
                    done.append(f"nothing needs the lines for {role} in {rules.path} any more: take them out")
    except psycopg.Error as error:
        raise ShadowError(f"shadow database {shadow!r} cannot be dropped: {said(error)}") from error
    return tuple(done)


@contextmanager
def _sessions(wish: Wish) -> Iterator[tuple[psycopg.Connection[Any], psycopg.Connection[Any]]]:
    """Open the admin's session on the shadow's server and one on production; tell errors in plain words."""
    import psycopg

    try:
        with ExitStack() as stack:
            session = stack.enter_context(closing(open_session(wish.admin_dsn, "postgres")))
            if wish.how == "copy":  # nobody may be connected to production then, ourselves included
                source = session
            else:
                source = stack.enter_context(
                    closing(open_session(wish.source_dsn or wish.admin_dsn, wish.production))
                )
            yield session, source
    except psycopg.errors.InsufficientPrivilege as error:
        raise ShadowError(
            f"the admin login may not prepare a shadow: {said(error)}; use a superuser"
        ) from error
    except psycopg.Error as error:
        raise ShadowError(
            f"the shadow of database {wish.production!r} cannot be made: {said(error)}"
        ) from error


def _create(
    session: psycopg.Connection[Any],
    source: psycopg.Connection[Any],
    wish: Wish,
    plan: Plan,
    tell: Tell,
) -> None:
    """Create the database, closed to PUBLIC before anything is in it, and marked as unfinished."""
    import psycopg
    from psycopg import sql

    name, owner = sql.Identifier(wish.shadow), sql.Identifier(wish.role)
    if plan.exists:
        tell(f"dropping the shadow database {wish.shadow} to build it anew")
        session.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))
    if wish.how == "copy":
        statement = sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE {}").format(
            name, owner, sql.Identifier(wish.production)
        )
    else:
        statement = sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0 {}").format(
            name, owner, _locale(source)
        )
    try:
        session.execute(statement)
    except psycopg.errors.ObjectInUse as error:
        raise ShadowError(
            f"database {wish.production!r} is in use, and PostgreSQL copies a database only while nobody is"
            " connected to it; prepare the shadow while the services are stopped, or with how = 'schema'"
        ) from error
    session.execute(sql.SQL("REVOKE CONNECT, TEMPORARY ON DATABASE {} FROM PUBLIC").format(name))
    write_notes(session, wish.shadow, {"of": wish.production, "state": BUILDING})


def _locale(source: psycopg.Connection[Any]) -> Any:
    """Return the options that give a new database production's encoding and sorting."""
    from psycopg import sql

    row = source.execute(
        "SELECT pg_encoding_to_char(encoding), datcollate, datctype, to_jsonb(d) ->> 'datlocprovider',"
        " coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale')"
        " FROM pg_database d WHERE datname = current_database()"
    ).fetchone()
    encoding, collate, ctype, provider, locale = row or ("UTF8", "C", "C", "c", None)
    options = [
        sql.SQL("ENCODING {} LC_COLLATE {} LC_CTYPE {}").format(
            sql.Literal(encoding), sql.Literal(collate), sql.Literal(ctype)
        )
    ]
    if provider == "i":
        options.append(sql.SQL("LOCALE_PROVIDER icu ICU_LOCALE {}").format(sql.Literal(locale)))
    elif provider == "b":
        options.append(sql.SQL("LOCALE_PROVIDER builtin BUILTIN_LOCALE {}").format(sql.Literal(locale)))
    return sql.SQL(" ").join(options)


def _furnish(
    inside: psycopg.Connection[Any],
    source: psycopg.Connection[Any],
    wish: Wish,
    plan: Plan,
    restored: Restored,
    tell: Tell,
) -> dict[str, Any]:
    """Cut what reaches outside, fill in rows, set ids apart, and give everything to the login."""
    stripped = [*restored.left_out, *strip(inside)]
    warnings = [f"cannot be made without what was left out: {failure}" for failure in restored.failed]
    warnings += [f"extension {name} is not on the shadow's server" for name in plan.missing_extensions]
    warnings += [f"routine in an untrusted language kept: {name}" for name in untrusted_routines(inside)]
    rows: dict[str, int] = {}
    sequences = 0
    if plan.build or plan.taken_over:
        if isinstance(plan.sample, SamplePlan) and plan.sample.wanted:
            rows = copy_sample(source, inside, plan.sample, wish.mask_key, tell)
        positions = source if wish.how == "schema" and plan.build else None
        sequences = offset_sequences(inside, SEQUENCE_OFFSET, positions)
        if rows:
            pass_rows(inside)
        warnings += [f"{name} cannot be filled" for name in refresh_views(inside)]
    own_everything(inside, wish.role)
    return {"stripped": stripped, "warnings": warnings, "rows": rows, "sequences": sequences}


def _production_schema(wish: Wish) -> str:
    """Fingerprint production in a short session of its own: while it is copied nobody may be connected."""
    with closing(open_session(wish.source_dsn or wish.admin_dsn, wish.production)) as session:
        return fingerprint(read_schema(session))


def _note(
    session: psycopg.Connection[Any], wish: Wish, plan: Plan, schema: str, made: dict[str, Any]
) -> None:
    write_notes(
        session,
        wish.shadow,
        {
            "of": wish.production,
            "how": "taken over" if plan.taken_over else wish.how,
            "schema": schema,
            "rows": made["rows"],
            "stripped": made["stripped"],
            "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        },
    )


def _prove(
    session: psycopg.Connection[Any],
    source: psycopg.Connection[Any],
    wish: Wish,
    plan: Plan,
    tell: Tell,
) -> dict[str, str]:
    """Switch the login on, let it knock, and off again if it is not confined."""
    if wish.keep_out == "hba" and not put_in_force(session):
        raise ShadowError("the server was told to re-read pg_hba.conf and has not; look into its log")
    proof.switch_login(session, wish.role, on=True)
    tell("knocking with the shadow login")
    if plan.keep_out == "separate":
        knocks = proof.knock_own(wish.admin_dsn, wish.shadow, wish.role, wish.password)
        there = proof.knock_there(
            source, wish.production_url or wish.source_dsn, wish.production, wish.role, wish.password
        )
        knocks.refused.update(there.refused)
        knocks.trouble.extend(there.trouble)
    else:
        knocks = proof.knock_here(session, wish.admin_dsn, wish.shadow, wish.role, wish.password)
    proof.require_confined(session, wish.shadow, wish.role, knocks)
    return knocks.refused


def _hba_help(rules: HostRules) -> str:
    lines = "\n".join(f"    {line}" for line in rules.lines)
    return (
        f"{rules.gap}. Put these lines into {rules.path} on the server's machine, above line {rules.above}:\n"
        f"{lines}\n  then run this again: it has the file re-read, and knocks"
    )
