"""What a PostgreSQL shadow shall be, and what making it so would change: looked up, nothing touched."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from perflab.config import Sample
from perflab.errors import ConfigError, ShadowError

from .databaseaccess import Closed, as_statements, plan_closing, read_mark
from .dumping import find_programs
from .hostrules import HostRules, read_host_rules
from .login import allowed_connections, check_login, require_ours
from .sampling import Plan as SamplePlan
from .sampling import plan_sample
from .session import BUILDING, database_comment, read_notes, server_identity
from .shadowdatabase import REACHING_OUT
from .tables import read_tables

if TYPE_CHECKING:
    import psycopg

KeepOut = Literal["", "revoke", "hba", "separate"]
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wish:
    """A shadow as it shall be.

    Parameters
    ----------
    admin_dsn : str
        A superuser's login on the shadow's server.
    production, shadow : str
        Names of the database and of its shadow.
    role, password : str
        The shadow login.
    source_dsn : str
        A login that may read production, where that is another server, or a replica; else the admin's.
    production_url : str
        Where production is, for the proof; ``source_dsn`` when left out.
    how : {'schema', 'copy'}
        ``schema``: by pg_dump, while production is in use. ``copy``: with all rows as they are, while nobody
        is connected to production.
    keep_out : {'', 'revoke', 'hba', 'separate'}
        By what the login is kept out of production; what it was before when left out.
    limit : int, optional
        Most sessions of the login; a quarter of the server's when left out.
    app_roles : sequence of str
        Further roles (groups without login) that keep CONNECT on production.
    settings : mapping
        Settings of the login.
    like : str
        An application's login whose settings it gets, too.
    sample, unmasked, mask_key
        Rows to begin with, columns that may be copied as they are, and what masks depend on.
    refresh : bool
        Whether a shadow that is there is built anew.
    programs : sequence of Path, optional
        Where pg_dump is looked for.
    """

    admin_dsn: str
    production: str
    shadow: str
    role: str
    password: str
    source_dsn: str = ""
    production_url: str = ""
    how: Literal["schema", "copy"] = "schema"
    keep_out: KeepOut = ""
    limit: int | None = None
    app_roles: Sequence[str] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    like: str = ""
    sample: Sample | None = None
    unmasked: Collection[str] = ()
    mask_key: bytes = b""
    refresh: bool = False
    programs: Sequence[Path] | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A PostgreSQL shadow that was proven to be cut off.

    Parameters
    ----------
    shadow, role : str
        The database and its login role.
    created : bool
        Whether the database was made (or taken over from a dump) just now; else it kept its rows.
    refused : dict of str to str
        Database -> what the server said when the role tried to enter.
    closed : tuple of str
        Databases PUBLIC may not enter any more.
    stripped : tuple of str
        What was removed or left out because it reaches outside.
    sequences : int
        How many sequences were set ahead of production's.
    rows : dict of str to int
        Rows copied per table.
    limit : int
        Most sessions of the login.
    kept_out : str
        By what.
    warnings : tuple of str
        What differs from production, or may reach outside.
    """

    shadow: str
    role: str
    created: bool
    refused: dict[str, str]
    closed: tuple[str, ...]
    stripped: tuple[str, ...]
    sequences: int
    rows: dict[str, int] = field(default_factory=dict)
    limit: int = 0
    kept_out: str = "revoke"
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be done.

    ``build``: the database is made; ``exists``: one of ours is there; ``taken_over``: one that was restored
    by hand for our login. ``closing``: what taking the databases from PUBLIC takes. ``keep_out``: "" while
    nobody has chosen; ``question`` then says between what.
    """

    build: bool
    exists: bool
    taken_over: bool
    separate: bool
    keep_out: KeepOut
    limit: int
    closed: Closed
    closing: Closed
    closing_statements: tuple[str, ...]
    host_rules: HostRules
    missing_extensions: tuple[str, ...]
    sample: SamplePlan | None
    question: str = ""


def look(wish: Wish, session: psycopg.Connection[Any], source: psycopg.Connection[Any]) -> Plan:
    """Look at both servers and plan.

    Parameters
    ----------
    wish : Wish
        What shall be.
    session, source : psycopg.Connection
        The admin's on the shadow's server, and one on production.

    Returns
    -------
    Plan

    Raises
    ------
    ConfigError
        If what is wished for cannot be.
    ShadowError
        If something of that name is somebody else's, or no pg_dump fits.
    """
    separate = server_identity(session) != server_identity(source)
    _check(wish, separate)
    require_ours(session, wish.shadow, wish.role)
    _require_superuser(session)
    notes = read_notes(session, wish.shadow)
    there = database_comment(session, wish.shadow) is not None
    build = not there or wish.refresh or (notes or {}).get("state") == BUILDING
    mark = read_mark(session, wish.role)
    closed: Closed = {} if mark is None else mark["closed"]
    closing = plan_closing(
        session, wish.shadow, wish.role, {wish.production: tuple(wish.app_roles)} if not separate else {}
    )
    closing.pop(wish.shadow, None)
    rules = read_host_rules(session, wish.shadow, wish.role)
    before = "" if mark is None else mark.get("kept_out", "revoke" if closed else "")
    keep_out = _choose(wish, separate, before, closing, rules)
    if build and wish.how == "schema":
        find_programs(source.info.server_version // 10_000, wish.programs)
    wants_rows = build and wish.how == "schema" and wish.sample is not None
    return Plan(
        build=build,
        exists=there,
        taken_over=there and notes is None,
        separate=separate,
        keep_out=keep_out,
        limit=allowed_connections(session) if wish.limit is None else wish.limit,
        closed=closed,
        closing=closing,
        closing_statements=tuple(as_statements(session, closing)),
        host_rules=rules,
        missing_extensions=_missing(session, source) if separate and build else (),
        sample=plan_sample(read_tables(source), wish.sample, wish.unmasked)
        if wants_rows and wish.sample
        else None,
        question="" if keep_out else _question(wish, closing, rules),
    )


def _check(wish: Wish, separate: bool) -> None:
    check_login(wish.role, wish.password, wish.settings)
    if wish.shadow == wish.production and not separate:
        raise ShadowError(f"the shadow of database {wish.production!r} needs a name of its own")
    if wish.keep_out == "separate" and not separate:
        raise ConfigError(
            "the shadow's server is production's own (one system identifier): nothing separates them; choose"
            " 'revoke' or 'hba', or give the shadow another server"
        )
    if wish.keep_out in ("revoke", "hba") and separate:
        raise ConfigError(
            f"the shadow has a server of its own: {wish.keep_out!r} is for one server; choose 'separate'"
        )
    if wish.how == "copy" and (separate or wish.sample is not None):
        raise ConfigError(
            "how = 'copy' takes all rows as they are, on one server; for a server apart or a masked sample"
            " use how = 'schema'"
        )
    if wish.limit is not None and wish.limit < 1:
        raise ConfigError("the login needs at least one session")


def _choose(wish: Wish, separate: bool, before: str, closing: Closed, rules: HostRules) -> KeepOut:
    """Return what was chosen now, or holds still from before."""
    if wish.keep_out:
        return wish.keep_out
    if before == "separate" and separate:
        return "separate"
    if before == "hba" and not separate and not rules.gap:
        return "hba"
    if before == "revoke" and not separate and not closing:
        return "revoke"
    return ""


def _question(wish: Wish, closing: Closed, rules: HostRules) -> str:
    closed = (
        f"takes CONNECT on {', '.join(sorted(closing))} from PUBLIC" if closing else "has nothing to take"
    )
    return (
        f"by what shall {wish.role!r} be kept out of production? 'revoke' {closed}; 'hba' needs lines in"
        f" {rules.path}; 'separate' needs another server. Choose one"
    )


def _require_superuser(session: psycopg.Connection[Any]) -> None:
    import psycopg

    row = session.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone()
    if row is None or not row[0]:
        raise psycopg.errors.InsufficientPrivilege("it is no superuser")


def _missing(session: psycopg.Connection[Any], source: psycopg.Connection[Any]) -> tuple[str, ...]:
    """Return production's extensions this server does not have."""
    used = {name for (name,) in source.execute("SELECT extname FROM pg_extension").fetchall()}
    here = {name for (name,) in session.execute("SELECT name FROM pg_available_extensions").fetchall()}
    return tuple(sorted(used - here - set(REACHING_OUT)))
