"""Short pieces of real work that return what went wrong, for the list of mutations.

Each looks at effects only: rows of databases, keys, files, answers of services, verdicts of audits. A wrong
begins with its kind: ``leak`` (marked work in production, or at a peer), ``harmed`` (a real user's work),
``done`` (what had to be refused), ``refused`` (marked work that should have gone well, or at another wall
than the one that is tried), ``unnoticed`` (a verdict that is better than the truth).
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any

from attached_service import Service, forget, noted
from isolation import attempts
from isolation.mutation_ground import PREFIX, Ground, keys_of
from two_sides import KEY

from perflab.shadow.audit import Audit
from perflab.shadow.audit.signature import Signer, check

Probe = Callable[[Ground], list[str]]


# ---- SQL -------------------------------------------------------------------------------------------------


def pooled(via: str) -> Probe:
    """Have a real user, marked work and a real user write by one way to PostgreSQL."""

    def probe(ground: Ground) -> list[str]:
        wrongs = []
        for mark in (None, ground.mark(), None):
            told, note = ground.play(mark, via)
            wrongs += _placed(ground, mark, note, str(told["errors"]))
        return wrongs + ground.wrongs()

    return probe


def async_pool(ground: Ground) -> list[str]:
    """Have the same done by psycopg's pool of tasks, with one connection only."""
    notes, mark = [ground.note() for _ in range(3)], ground.mark()
    said = ground.service.call(attempts.written_in_async_pool, ground.url("soak_shop"), mark, notes)
    ground.stage.oracle.own.update(int(answer) for answer in said[::2] if answer.isdigit())
    wrongs = []
    for whose, note, answer in zip((None, mark, None), notes, said, strict=True):
        wrongs += _placed(ground, whose, note, answer)
    return wrongs + ground.wrongs()


def written(how: str) -> Probe:
    """Have marked work handed on inside the service."""

    def probe(ground: Ground) -> list[str]:
        note, mark = ground.note(), ground.mark()
        said = ground.write(how, mark, note)
        return _placed(ground, mark, note, said) + ground.wrongs()

    return probe


def _placed(ground: Ground, mark: Any, note: str, said: str) -> list[str]:
    """Return what is wrong with where an item is."""
    found = ground.where(note)
    if mark is None:
        return [] if found == ["soak_shop"] else [f"harmed: a real user's item is in {found}: {said}"]
    wrongs = [] if found == ["soak_shadow"] else [f"refused: a marked item is in {found}: {said}"]
    return wrongs + (["leak: a marked item is in production"] if "soak_shop" in found else [])


def not_placed(how: str, database: str = "soak_shop", note_in: str = "soak_shop") -> Probe:
    """Have marked work done that has to be refused."""

    def probe(ground: Ground) -> list[str]:
        note = ground.note()
        said = ground.write(how, ground.mark(), note, database)
        ground.service.call(attempts.forget_driver)
        found = ground.where(note, *({note_in} - {"soak_shop", "soak_shadow"}))
        wrongs = [f"leak: a marked item is in {name}" for name in found if name != "soak_shadow"]
        wrongs += [f"done: a marked item is in {name}" for name in found if name == "soak_shadow"]
        if "ShadowError" not in said and not found:
            wrongs.append(f"refused: elsewhere: {said}")
        return wrongs + ground.wrongs()

    return probe


def kept_production(ground: Ground) -> list[str]:
    """Have marked work find a connection of production."""
    note, url = ground.note(), ground.url("soak_shop")
    said = ground.service.call(attempts.written_on_kept, url, None, ground.mark(), note)
    wrongs = ["leak: a marked item is in production"] if ground.where(note) else []
    return wrongs + ground.wrongs() + ([] if "ShadowError" in said or wrongs else [f"refused: {said}"])


def kept_shadow(ground: Ground) -> list[str]:
    """Have a real user's work find a shadow connection: it takes it over."""
    note, url = ground.note(), ground.url("soak_shop")
    said = ground.service.call(attempts.written_on_kept, url, ground.mark(), None, note)
    found = ground.where(note)
    ground.wrongs()  # the real user's own item, whose transaction nobody told
    return [] if found == ["soak_shop"] else [f"harmed: a real user's item is in {found}: {said}"]


def killed(via: str) -> Probe:
    """Do marked work of a run that was killed."""

    def probe(ground: Ground) -> list[str]:
        run = ground.begin_run()
        mark = run.mark()
        run.kill()
        _, note = ground.play(mark, via)
        run.remove()
        return [f"done: an item of a killed run is in {place}" for place in ground.where(note)]

    return probe


def rolled_back(ground: Ground) -> list[str]:
    """End a shadow transaction that was open when its run was killed."""
    run = ground.begin_run()
    mark = run.mark()
    ground.service.call(attempts.begin_and_keep, ground.url("soak_shop"), mark)
    run.kill()
    said = ground.service.call(attempts.roll_back, mark)
    open_ones = ground.ask(
        "soak_shadow",
        "SELECT 1 FROM pg_stat_activity WHERE usename = 'soak_role' AND state LIKE 'idle in transaction%'",
    )
    ground.service.call(attempts.end_kept)
    run.remove()
    return [f"refused: a shadow transaction stays open: {said}"] if open_ones else []


def apart(ground: Ground) -> list[str]:
    """Do marked work on two tables where shadow tables are in a schema of production's database."""
    note = ground.note()
    said = ground.write("two tables", ground.mark(), note, "soak_apart")
    wrongs = []
    if ground.ask("soak_apart", f"SELECT 1 FROM public.item WHERE note = '{note}'"):
        wrongs.append("leak: a marked item is in production's schema")
    if not ground.ask("soak_apart", f"SELECT 1 FROM shadow.item WHERE note = '{note}'"):
        wrongs.append(f"refused: {said}")
    return wrongs


def maria(ground: Ground) -> list[str]:
    """Do marked work on MariaDB."""
    note = ground.note()
    login = _maria_login(ground)
    said = ground.service.call(
        attempts.written_by_pymysql, login, ground.mark(), [f"INSERT INTO item VALUES ('{note}')"]
    )
    with ground.maria.connect() as session, session.cursor() as cursor:
        found = [
            name
            for name in ("market", "market_shadow")
            if cursor.execute(f"SELECT 1 FROM {name}.item WHERE note = '{note}'")
        ]
    wrongs = [] if found == ["market_shadow"] else [f"refused: a marked item is in {found}: {said}"]
    return wrongs + (["leak: a marked item is in production"] if "market" in found else [])


def user_lock(ground: Ground) -> list[str]:
    """Have marked work take a user lock that a real user wants."""
    login, mark = _maria_login(ground), ground.mark()
    said = ground.service.call(attempts.hold_lock, login, mark)
    got = ground.service.call(attempts.written_by_pymysql, login, None, ["SELECT GET_LOCK('stocktaking', 0)"])
    ground.service.call(attempts.end_lock, mark)
    return (
        [] if got == 1 else [f"harmed: a real user does not get a lock ({got}) that marked work has: {said}"]
    )


def _maria_login(ground: Ground) -> dict[str, Any]:
    return {
        "host": "127.0.0.1", "port": ground.maria.port, "user": "market", "password": "secret",
        "database": "market",
    }  # fmt: skip


def file(*statements: str) -> Probe:
    """Do marked work on a file of SQLite; ``{path}`` is production's."""

    def probe(ground: Ground) -> list[str]:
        note, path = ground.note(), ground.files / "notes.db"
        given = [statement.format(path=path, note=note) for statement in statements]
        said = ground.service.call(attempts.written_to_file, str(path), ground.mark(), given)
        found = []
        for name in ("notes.db", "shadow of notes.db"):
            with closing(sqlite3.connect(ground.files / name)) as asked:
                if asked.execute("SELECT 1 FROM item WHERE note = ?", [note]).fetchall():
                    found.append(name)
        wrongs = ["leak: a marked row is in production's file"] if "notes.db" in found else []
        return wrongs + ([] if found or "ShadowError" in said else [f"refused: elsewhere: {said}"])

    return probe


# ---- Redis and peers -------------------------------------------------------------------------------------


def key(ground: Ground) -> list[str]:
    """Set a key as marked work."""
    name = ground.note()
    said = ground.service.call(attempts.key_set, ground.redis_server.admin_url, ground.mark(), name)
    found = keys_of(ground.redis_server)
    wrongs = [] if f"{PREFIX}{name}" in found else [f"refused: {said}"]
    return wrongs + (["leak: a marked key is in production"] if name in found else [])


def kept_key(ground: Ground) -> list[str]:
    """Set a key as marked work on a connection of production."""
    name, url = ground.note(), ground.redis_server.admin_url
    said = ground.service.call(attempts.key_set_on_kept, url, ground.mark(), name)
    if name in keys_of(ground.redis_server):
        return ["leak: a marked key is in production"]
    return [] if "opened for production" in said else [f"refused: elsewhere: {said}"]


def peers(client: str) -> Probe:
    """Call an attached service, which marked work may, and a stranger, which it may not."""

    def probe(ground: Ground) -> list[str]:
        heard = len(ground.outside.received)
        mark = ground.mark()
        known = ground.service.call(attempts.peer_called, client, ground.echo.url, mark)
        ground.service.call(attempts.peer_called, client, ground.outside.url, mark)
        wrongs = [] if known == "200" else [f"refused: a call to an attached service: {known}"]
        if known == "200" and mark["token"] not in ground.echo.last.get("tracestate", ""):
            wrongs.append("leak: an attached service was called without the mark")
        if len(ground.outside.received) > heard:
            wrongs.append("leak: a stranger was called")
        return wrongs

    return probe


def uncovered_client(ground: Ground) -> list[str]:
    """Use a client, as marked work, that no hook covers."""
    heard = len(ground.echo.received)
    ground.service.call(attempts.peer_called, "http.client", ground.echo.url, ground.mark())
    return ["leak: an uncovered client was heard"] if len(ground.echo.received) > heard else []


# ---- requests --------------------------------------------------------------------------------------------


def requests_of(framework: str) -> Probe:
    """Send a real user's request and a marked one."""

    def probe(ground: Ground) -> list[str]:
        wrongs = []
        for headers, mark in (({}, None), (ground.headers(), True)):
            note = ground.note()
            status, said = ground.request(framework, headers, note)
            if mark is None and said.isdigit():
                ground.stage.oracle.own.add(int(said))
            wrongs += _placed(ground, mark, note, f"{status} {said}")
        return wrongs + ground.wrongs()

    return probe


def _refused(ground: Ground, headers: dict[str, str], why: str) -> list[str]:
    """Send what has to be answered with 403, for this reason, and have no effect."""
    note = ground.note()
    status, said = ground.request("flask", headers, note)
    found = ground.where(note)
    wrongs = ground.wrongs()
    if "soak_shadow" in found:
        wrongs.append(f"done: it was answered {status}, and its item is in {found}")
    if not found and (status != 403 or why not in said):
        wrongs.append(f"refused: elsewhere, with {status}: {said[:200]}")
    return wrongs


def in_a_process_with_a_hole(ground: Ground) -> list[str]:
    """Send a marked request to a process whose driver is not hooked, and was imported for a real user."""
    said = ground.write("psycopg", None, ground.note())
    if not said.isdigit():
        return [f"harmed: a real user's item is not written: {said}"]
    return _refused(ground, ground.headers(), "hook psycopg is off")


def after_an_import(ground: Ground) -> list[str]:
    """Send a marked request to a process that has imported a driver no hook covers."""
    ground.write("pg8000", None, note := ground.note())
    ground.wrongs()  # the real user's own item, whose transaction pg8000 does not tell
    if not ground.where(note):
        return ["harmed: a real user's item is not there"]
    wrongs = _refused(ground, ground.headers(), "driver pg8000 is not covered")
    ground.service.call(attempts.forget_driver)
    return wrongs


def forged(ground: Ground) -> list[str]:
    """Send a token whose signature is made up."""
    headers = ground.headers()
    made_up = headers["tracestate"][:-32] + secrets.token_hex(16)
    return _refused(ground, {**headers, "tracestate": made_up, "baggage": made_up}, "forged")


def matching_by_chance(ground: Ground) -> list[str]:
    """Send a real user's trace-id that begins like the run's."""
    note = ground.note()
    trace_id = f"{ground.run.tag:04x}{secrets.token_hex(14)}"
    status, said = ground.request("flask", {"traceparent": f"00-{trace_id}-{'1' * 16}-01"}, note)
    if said.isdigit():
        ground.stage.oracle.own.add(int(said))
    return _placed(ground, None, note, f"{status} {said}") + ground.wrongs()


def expired(ground: Ground) -> list[str]:
    """Send a token that has lived long enough."""
    return _refused(ground, ground.headers(now_s=1_600_000_000.0), "expired")


def contradicting(ground: Ground) -> list[str]:
    """Two tokens in one request."""
    one, other = ground.headers(), ground.headers()
    return _refused(ground, {**one, "baggage": other["baggage"]}, "contradiction")


def replayed(ground: Ground) -> list[str]:
    """Send a request twice."""
    headers = ground.headers()
    status, said = ground.request("flask", headers, ground.note())
    if status != 200:
        return [f"refused: the first of two: {status} {said}"]
    return _refused(ground, headers, "replayed")


def over(ground: Ground) -> list[str]:
    """Send a mark of a run that is over."""
    run = ground.begin_run()
    _polled(ground.service)
    headers = ground.headers(run)
    run.remove()
    _polled(ground.service)
    return _refused(ground, headers, "run not live")


def _polled(service: Service) -> None:
    service.call(forget)  # every call reads the list first


# ---- lists of live runs ----------------------------------------------------------------------------------


def listed(*lists: tuple[bool | None, float, str]) -> Probe:
    """Do marked work of a run after lists came of which none may be believed at the end.

    Parameters
    ----------
    lists : tuple of bool or None, float and str
        Of each: whether the run lives (None: it is not listed), its age, and the key it is signed with.
    """

    def probe(ground: Ground) -> list[str]:
        apart = ground.lists
        run, mark = apart.run()
        apart.service.call(attempts.believe_nothing)
        for lives, age_s, key in lists:
            apart.publish(None if lives is None else replace(run, killed=not lives), age_s, key)
            _polled(apart.service)
        note = ground.note()
        apart.service.call(attempts.written, "psycopg", ground.url("soak_shop"), mark, note)
        return [f"done: an item is in {place}" for place in ground.where(note)] + ground.wrongs()

    return probe


STALE = listed((True, 60.0, KEY))
FORGED = listed((True, 0.0, "another key of somebody's"))
OLDER = listed((True, 3.0, KEY), (None, 1.0, KEY), (True, 3.0, KEY))
REVIVED = listed((True, 2.0, KEY), (False, 1.0, KEY), (True, 0.0, KEY))


# ---- the audit and the signature -------------------------------------------------------------------------


def audited(
    happens: str = "",
    expected: str = "proven",
    *,
    elsewhere: bool = False,
    wrong: str = "",
    marked: bool = True,
    canaries: int = 1,
) -> Probe:
    """Audit a run; what else happens in production meanwhile must show.

    Parameters
    ----------
    happens : str
        Superuser's statement on production, ``{canary}`` for one of the run's.
    expected : str
        ``proven``, ``not proven``, or ``leaked``.
    elsewhere : bool
        Whether an agent reports marked work on another login.
    wrong : str
        The database that the audit watches by mistake.
    marked : bool
        Whether there is marked work.
    canaries : int
        How many the generator says it sent.
    """

    def probe(ground: Ground) -> list[str]:
        store = ground.target.stores[0]
        if wrong:
            store = _watching(ground, wrong)
        with Audit([store], f"run-{ground.run.tag}", slack_ns={"postgresql": 0} if wrong else None) as audit:
            audit.start()
            ground.service.call(forget)
            for mark in (None, ground.mark(), None) if marked else (None,):
                ground.write("psycopg alone", mark, ground.note())
            if happens:
                canary = f"plc-run-{ground.run.tag}-{secrets.token_hex(16)}"
                ground.ask("soak_shop", happens.format(canary=canary))
            audit.poll()
            claims, sessions = reported(ground.service)
            if elsewhere:
                sessions.append({**sessions[0], "user": "soak_app", "database": "soak_shop", "shadow": False})
            proof = audit.finish(claims, sessions, canaries)
        ground.wrongs()  # what happened on purpose
        row = proof["stores"][0]
        verdict = "leaked" if proof["leaks"] else "proven" if row["proven"] else "not proven"
        if verdict == expected:
            return []
        kind = "unnoticed" if expected != "proven" else "not proven"
        return [f"{kind}: it is {verdict} instead of {expected}: {row['reasons']} {row['not_checked']}"]

    return probe


def reported(service: Service) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the claims and sessions the agent would report."""
    claims = [
        dict(zip(("store", "fingerprint", "begin_ns", "end_ns"), claim, strict=True))
        for claim in service.call(noted, "claim")
    ]
    sessions = [
        {"store": store, "user": user, "database": database, "shadow": shadow, "marked_calls": 1}
        for store, user, database, shadow in service.call(noted, "session")
    ]
    return claims, sessions


def _watching(ground: Ground, database: str) -> Any:
    import msgspec

    from perflab.config import Secret

    path = ground.files / f"watching-{database}"
    path.write_text(ground.stage.production.admin_dsn.rpartition("/")[0] + f"/{database}")
    return msgspec.structs.replace(ground.target.stores[0], audit=Secret(file=str(path)))


def signed(alter: Callable[[Any], None]) -> Probe:
    """Sign a run's proof, alter it, and check it."""

    def probe(ground: Ground) -> list[str]:
        directory = ground.files / f"run {next(_runs)}"
        directory.mkdir()
        (directory / "isolation.json").write_text(json.dumps({"proven": 0, "leaks": ["one"]}))
        signer = Signer(b"the controller's")
        signer.sign(directory)
        if not check(directory, public_key=signer.public_key).holds:
            return ["refused: the signature does not hold of what was signed"]
        alter(directory)
        if check(directory, public_key=signer.public_key).holds:
            return ["unnoticed: the signature holds of what was altered"]
        return []

    return probe


_runs = iter(range(1_000_000))
FINE = json.dumps({"proven": 1, "leaks": []})


def embellish(directory: Any) -> None:
    """Write a better proof."""
    (directory / "isolation.json").write_text(FINE)


def embellish_with_digests(directory: Any) -> None:
    """Write a better proof, and the digests of it where the signature lies."""
    embellish(directory)
    path = directory / "isolation.sig"
    kept = json.loads(path.read_text())
    Signer(b"somebody's").sign(directory)
    path.write_text(json.dumps({**kept, "signed": json.loads(path.read_text())["signed"]}))


def embellish_and_sign(directory: Any) -> None:
    """Write a better proof and sign it with another key."""
    embellish(directory)
    Signer(b"somebody's").sign(directory)
