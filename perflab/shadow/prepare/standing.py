"""Look at a PostgreSQL shadow as it stands: whether it is ours, confined, apart, and has production's schema.

Only the shadow's own login is needed. With a login that may read production (the store's ``audit`` is one)
its schema and sequences are compared, too.
"""

from __future__ import annotations

import datetime
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from perflab.shadow.refusal import try_postgresql
from perflab.shadow.stores import place

from .databaseaccess import read_mark
from .fingerprint import differences, fingerprint, read_schema
from .login import allowed_connections, groups_of
from .proof import databases, login_url
from .session import BUILDING, open_session, read_notes, said, server_identity
from .shadowdatabase import REACHING_OUT, sequence_positions

if TYPE_CHECKING:
    import psycopg

_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at; ``unknown`` is what could not be."""

    what: str
    state: Literal["good", "bad", "unknown"]
    text: str


def look_at_postgresql(production_url: str, shadow_url: str, reader_dsn: str = "") -> list[Check]:
    """Look at a shadow, changing nothing.

    Parameters
    ----------
    production_url, shadow_url : str
        The store's; the shadow's with its login.
    reader_dsn : str
        A login that may read production.

    Returns
    -------
    list of Check
        When the shadow cannot be entered, the first of them says so and is the only one about it.
    """
    import psycopg

    login = place(shadow_url)
    production = place(production_url)
    with ExitStack() as stack:
        try:
            session = stack.enter_context(closing(open_session(shadow_url)))
        except psycopg.Error as error:
            return [Check("there", "bad", f"its login cannot enter it: {said(error)}")]
        reader, why = None, "no login that may read production is given"
        if reader_dsn:
            try:
                reader = stack.enter_context(closing(open_session(reader_dsn, production.database)))
            except psycopg.Error as error:
                why = said(error)
        try:
            notes = read_notes(session, login.database)
            checks = [
                Check("there", "good", f"{login.user} enters {login.database}"),
                _ours(notes),
                *_role(session, login.user),
                _confined(session, reader, production_url, shadow_url),
                _nothing_reaches_out(session),
            ]
            if reader is None:
                checks += [Check(what, "unknown", why) for what in ("schema", "sequences")]
            else:
                checks += [_schema(session, reader, notes or {}), _sequences(session, reader)]
            return [*checks, _rows(session, notes or {}), _age(notes or {})]
        except psycopg.Error as error:
            return [Check("there", "bad", f"it cannot be looked at: {said(error)}")]


def _ours(notes: dict[str, Any] | None) -> Check:
    if notes is None:
        return Check("ours", "bad", "it was not made by 'perflab shadow prepare'")
    if notes.get("state") == BUILDING:
        return Check("ours", "bad", "it was begun and not finished; prepare it again")
    return Check("ours", "good", f"made of {notes.get('of', '?')} by {notes.get('how', 'copy')}")


def _role(session: psycopg.Connection[Any], role: str) -> list[Check]:
    row = session.execute(
        "SELECT rolconnlimit, ARRAY(SELECT name FROM (VALUES ('SUPERUSER', rolsuper),"
        " ('CREATEROLE', rolcreaterole), ('CREATEDB', rolcreatedb), ('REPLICATION', rolreplication),"
        " ('BYPASSRLS', rolbypassrls)) v (name, has) WHERE has) FROM pg_roles WHERE rolname = %s",
        (role,),
    ).fetchone()
    limit, powers = row if row is not None else (-1, [])
    allowed = allowed_connections(session)
    mark = read_mark(session, role)
    groups = groups_of(session, role)
    trouble = [*(f"it has {power}" for power in powers), *(f"it is a member of {group}" for group in groups)]
    if mark is None:
        trouble.append("it was not made by 'perflab shadow prepare'")
    closed = ", ".join(sorted(mark["closed"])) if mark else ""
    by = (mark.get("kept_out", "") if mark else "") or ("revoke" if closed else "nothing noted")
    return [
        Check(
            "login", "bad" if trouble else "good", "; ".join(trouble) or f"{role} has no powers and no groups"
        ),
        Check("connections", "bad", "it may use up all of the server's; prepare it again")
        if limit < 0
        else Check("connections", "good", f"at most {limit}; a quarter of the server's is {allowed}"),
        Check(
            "kept out by",
            "good",
            f"{by}{f': PUBLIC may not enter {closed}' if closed else ''}",
        ),
    ]


def _confined(
    session: psycopg.Connection[Any],
    reader: psycopg.Connection[Any] | None,
    production_url: str,
    shadow_url: str,
) -> Check:
    """Knock at production, and on its server at every database but the shadow."""
    shadow, production = place(shadow_url), place(production_url)
    one_server = shadow.same_server(production) or (
        reader is not None and server_identity(reader) == server_identity(session)
    )
    names = dict.fromkeys([production.database, *(databases(session) if one_server else ())])
    if one_server:
        names.pop(shadow.database, None)
    trouble = []
    for name in names:
        witness = reader if name == production.database else None
        answer = try_postgresql(login_url(production_url, name, shadow.user, shadow.password), witness)
        if not answer.kept_out and not (answer.unclear and one_server and _no_right(session, name)):
            trouble.append(f"{name}: {answer.unclear or 'let it in'}")
    if trouble:
        return Check("confined", "bad", "; ".join(trouble))
    return Check("confined", "good", f"refused by {', '.join(names)} when it tried")


def _no_right(session: psycopg.Connection[Any], database: str) -> bool:
    row = session.execute(
        "SELECT NOT has_database_privilege(current_user, oid, 'CONNECT') FROM pg_database WHERE datname = %s",
        (database,),
    ).fetchone()
    return bool(row and row[0])


def _nothing_reaches_out(session: psycopg.Connection[Any]) -> Check:
    rows = session.execute(
        "SELECT 'event trigger ' || evtname FROM pg_event_trigger"
        " UNION ALL SELECT 'foreign server ' || srvname FROM pg_foreign_server"
        " UNION ALL SELECT 'publication ' || pubname FROM pg_publication"
        " UNION ALL SELECT 'subscription ' || subname FROM pg_subscription s"
        "   JOIN pg_database d ON d.oid = subdbid WHERE d.datname = current_database()"
        " UNION ALL SELECT 'extension ' || extname FROM pg_extension WHERE extname = ANY (%s)",
        (list(REACHING_OUT),),
    ).fetchall()
    found = ", ".join(str(name) for (name,) in rows)
    return Check("reaches out", "bad" if found else "good", found or "nothing in it does")


def _schema(
    session: psycopg.Connection[Any], reader: psycopg.Connection[Any], notes: dict[str, Any]
) -> Check:
    """Compare production now with production when the shadow was made; name what differs from the shadow."""
    now = read_schema(reader)
    noted = notes.get("schema")
    stripped = set(notes.get("stripped", ()))
    found = [
        line for line in differences(now, read_schema(session)) if line.rpartition(" is ")[0] not in stripped
    ]
    shown = "; ".join(found[:_SHOWN]) + (f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")
    if noted is None:
        return Check("schema", "bad" if found else "good", shown or "the same as production's")
    if fingerprint(now) != noted:
        return Check("schema", "bad", f"production's has changed since; prepare --refresh. {shown}")
    return Check("schema", "good", f"production's has not changed since{f'; here {shown}' if shown else ''}")


def _sequences(session: psycopg.Connection[Any], reader: psycopg.Connection[Any]) -> Check:
    """Tell whether each sequence is ahead of production's, and how far the nearest is."""
    ours, theirs = sequence_positions(session), sequence_positions(reader)
    ahead = {
        name: (ours[name][1] - last) * (1 if increment > 0 else -1)
        for name, (increment, last, _) in theirs.items()
        if name in ours
    }
    passed = [name for name, distance in ahead.items() if distance <= 0]
    if passed:
        return Check("sequences", "bad", f"production has reached {', '.join(passed)}; prepare --refresh")
    nearest = min(ahead.values(), default=0)
    return Check("sequences", "good", f"{len(ahead)} ahead of production's by {nearest} or more")


def _rows(session: psycopg.Connection[Any], notes: dict[str, Any]) -> Check:
    row = session.execute("SELECT coalesce(sum(n_live_tup), 0)::bigint FROM pg_stat_user_tables").fetchone()
    sampled = sum(notes.get("rows", {}).values())
    return Check("rows", "good", f"about {row[0] if row else 0}; {sampled} were copied from production")


def _age(notes: dict[str, Any]) -> Check:
    try:
        made = datetime.datetime.fromisoformat(str(notes["at"]))
        hours = (datetime.datetime.now(datetime.UTC) - made).total_seconds() / 3600
    except (KeyError, ValueError, TypeError):
        return Check("age", "unknown", "not noted")
    return Check("age", "good", f"{hours:.0f} h" if hours < 72 else f"{hours / 24:.0f} days")
