"""Checks that can fail: each protection is switched off in turn, and what it protects from happens.

The list of protections, each with a short piece of real work on real servers that finds nothing wrong while
everything is on, and something with that one off: a leak, a real user harmed, a refused thing done, a verdict
that is better than the truth. Where another wall stands behind a protection, the first entry shows that
wall (``refused``), and a second, with both off, what happens without either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import pytest
from isolation import attempts, lost_marks, probes, protections
from isolation.mutation_ground import Ground, confine_redis, has_mariadb, mutation_ground
from isolation.probes import Probe

from perflab.demo.scratch import scratch_directory
from perflab.shadow.drivers import HOOKS


def nowhere(_: Ground) -> AbstractContextManager[None]:
    """Change nothing on any server."""
    return nullcontext()


@dataclass(frozen=True)
class Protection:
    """One row of the list.

    Parameters
    ----------
    name : str
        What is switched off.
    probe : callable
        Tries it; returns what went wrong.
    finds : str
        How one of the wrongs begins when it is off.
    hooks : tuple of str
        Hooks of the agent that are left out.
    patches : tuple of str
        Names of what is switched off in the process that is running.
    given : callable
        Gives a right of the server's back, while its context lasts.
    inside : {'service', 'lists', 'controller'}
        Which process is patched: the service, the one with a list of its own, or the tests' own.
    hole : tuple of str
        Hooks that are left out in any case.
    amid : callable
        What is so in any case, as a context.
    """

    name: str
    probe: Probe
    finds: str
    hooks: tuple[str, ...] = ()
    patches: tuple[str, ...] = ()
    given: Callable[[Ground], AbstractContextManager[None]] = nowhere
    inside: str = "service"
    hole: tuple[str, ...] = ()
    amid: Callable[[Ground], AbstractContextManager[None]] = nowhere


@contextmanager
def entry_to_production(ground: Ground) -> Iterator[None]:
    """Let the shadow's login enter production's database."""
    ground.ask("soak_shop", "GRANT CONNECT ON DATABASE soak_shop TO soak_role")
    try:
        yield
    finally:
        ground.ask("soak_shop", "REVOKE CONNECT ON DATABASE soak_shop FROM soak_role")


@contextmanager
def rights_in_production(ground: Ground) -> Iterator[None]:
    """Let it write there, too."""
    with entry_to_production(ground), of_the_application(ground, "soak_role"):
        yield


@contextmanager
def rights_beside_the_schema(ground: Ground) -> Iterator[None]:
    """Let the login of the shadow schema write production's tables."""
    with of_the_application(ground, "soak_apart_role"):
        yield


@contextmanager
def of_the_application(ground: Ground, role: str) -> Iterator[None]:
    """Let a login do what the application's may: the catalogue of tables stays as it is."""
    ground.ask("soak_shop", f"ALTER ROLE {role} INHERIT")
    ground.ask("soak_shop", f"GRANT soak_app TO {role}")
    try:
        yield
    finally:
        ground.ask("soak_shop", f"REVOKE soak_app FROM {role}")
        ground.ask("soak_shop", f"ALTER ROLE {role} NOINHERIT")


@contextmanager
def all_keys(ground: Ground) -> Iterator[None]:
    """Let the shadow's user of Redis touch every key."""
    import redis

    with redis.Redis.from_url(ground.redis_server.admin_url) as client:
        client.execute_command("ACL", "SETUSER", "soak_shadow", "allkeys")
    try:
        yield
    finally:
        confine_redis(ground.redis_server)


NOTED = "INSERT INTO item VALUES ('{note}')"
ATTACHED = ("ATTACH '{path}' AS real", "INSERT INTO real.item VALUES ('{note}')")
LEAKED = "INSERT INTO item (note) VALUES ('{canary}')"
UNCLAIMED = "INSERT INTO item (note) VALUES ('by nobody')"

PROTECTIONS = (
    # the hooks of drivers and pools
    Protection(  # first, in a process that has not imported it yet
        "the refusal of unhooked libraries",
        probes.not_placed("psycopg"),
        "leak",
        (),
        ("the refusal of unhooked libraries",),
        hole=("psycopg",),
    ),
    Protection("psycopg", probes.pooled("psycopg"), "leak", ("psycopg",)),
    Protection(
        "the check for holes",
        probes.in_a_process_with_a_hole,
        "leak",
        (),
        ("the check for holes",),
        hole=("psycopg",),
    ),
    Protection(
        "psycopg-pool: the fence is behind", probes.pooled("psycopg-pool"), "refused", ("psycopg-pool",)
    ),
    Protection(
        "psycopg-pool and the fence", probes.pooled("psycopg-pool"), "leak", ("psycopg-pool",), ("the fence",)
    ),
    Protection("psycopg-pool, async: the fence is behind", probes.async_pool, "refused", ("psycopg-pool",)),
    Protection(
        "psycopg-pool, async, and the fence", probes.async_pool, "leak", ("psycopg-pool",), ("the fence",)
    ),
    Protection("psycopg2 and its pool", probes.pooled("psycopg2-pool"), "leak", ("psycopg2",)),
    Protection(
        "psycopg2: SQLAlchemy's pool is behind",
        probes.pooled("sqlalchemy-psycopg2"),
        "refused",
        ("psycopg2",),
    ),
    Protection(
        "psycopg2 and sqlalchemy", probes.pooled("sqlalchemy-psycopg2"), "leak", ("psycopg2", "sqlalchemy")
    ),
    Protection(
        "sqlalchemy: the fence is behind", probes.pooled("sqlalchemy-psycopg"), "refused", ("sqlalchemy",)
    ),
    Protection(
        "sqlalchemy and the fence",
        probes.pooled("sqlalchemy-psycopg"),
        "leak",
        ("sqlalchemy",),
        ("the fence",),
    ),
    Protection("asyncpg: the sockets are behind", probes.pooled("asyncpg-pool"), "refused", ("asyncpg",)),
    Protection(
        "asyncpg and the sockets",
        probes.pooled("asyncpg-pool"),
        "leak",
        ("asyncpg",),
        ("the guard of sockets",),
    ),
    Protection("pymysql: the sockets are behind", probes.maria, "refused", ("pymysql",)),
    Protection("pymysql and the sockets", probes.maria, "leak", ("pymysql",), ("the guard of sockets",)),
    Protection("sqlite3", probes.file(NOTED), "leak", ("sqlite3",)),
    Protection("redis: the sockets are behind", probes.key, "refused", ("redis",)),
    Protection("redis and the sockets", probes.key, "leak", ("redis",), ("the guard of sockets",)),
    Protection(
        "the fence of redis: the sockets are behind", probes.kept_key, "refused", (), ("the fence of redis",)
    ),
    Protection(
        "the fence of redis and the sockets",
        probes.kept_key,
        "leak",
        (),
        ("the fence of redis", "the guard of sockets"),
    ),
    # the hooks of what comes in and goes out
    Protection("flask", probes.requests_of("flask"), "leak", ("flask", "servers")),
    Protection("starlette", probes.requests_of("starlette"), "leak", ("starlette", "servers")),
    Protection("django", probes.requests_of("django"), "leak", ("django", "servers")),
    Protection("requests: the sockets are behind", probes.peers("requests"), "refused", ("requests",)),
    Protection(
        "requests and the sockets",
        probes.peers("requests"),
        "leak: a stranger",
        ("requests",),
        ("the guard of sockets",),
    ),
    Protection("httpx: the sockets are behind", probes.peers("httpx"), "refused", ("httpx",)),
    Protection(
        "httpx and the sockets",
        probes.peers("httpx"),
        "leak: a stranger",
        ("httpx",),
        ("the guard of sockets",),
    ),
    Protection("the list of peers", probes.peers("requests"), "leak: a stranger", (), ("the list of peers",)),
    Protection("sockets", probes.uncovered_client, "leak", ("sockets",)),
    Protection(
        "sockets, and a driver that is not covered: its import is refused before",
        probes.not_placed("pg8000"),
        "leak",
        ("sockets",),
        ("the watch for drivers",),
    ),
    Protection(
        "the watch for drivers: the sockets are behind",
        probes.after_an_import,
        "done",
        (),
        ("the watch for drivers",),
    ),
    # what hands work on
    Protection("threads: a thread", probes.written("a thread"), "leak", ("threads",)),
    Protection("threads: an executor", probes.written("an executor"), "leak", ("threads",)),
    Protection("threads: a worker at a queue", probes.written("a worker"), "leak", ("threads",)),
    Protection("threads: another process", probes.not_placed("a program"), "leak", ("threads",)),
    Protection(
        "what lost its mark carries a canary",
        lost_marks.canary,
        "leak",
        (),
        ("the search of what ordinary work sends",),
    ),
    Protection(
        "a thread that goes on", lost_marks.goes_on, "unnoticed", (), ("the look for threads that go on",)
    ),
    Protection("libpq itself", lost_marks.libpq, "leak", (), ("the closing of libpq",)),
    # where a connection leads
    Protection("the fence: a connection of production", probes.kept_production, "leak", (), ("the fence",)),
    Protection("the fence: a shadow connection", probes.kept_shadow, "harmed", (), ("the fence",)),
    Protection(
        "the confirmation: a pooler that leads to production",
        probes.not_placed("psycopg", "soak_pooled"),
        "leak",
        (),
        ("the confirmation",),
    ),
    Protection(
        "the refusal of unknown databases",
        probes.not_placed("psycopg", "soak_unlisted", "soak_unlisted"),
        "leak",
        (),
        ("the refusal of unknown databases",),
    ),
    Protection("mode deny", probes.not_placed("psycopg", "soak_sealed"), "done", (), ("the denial",)),
    Protection(
        "the routing: the role's confinement is behind",
        probes.pooled("psycopg"),
        "refused",
        (),
        ("the routing",),
    ),
    Protection(
        "the routing and the role's confinement: the confirmation is behind",
        probes.pooled("psycopg"),
        "refused",
        (),
        ("the routing",),
        rights_in_production,
    ),
    Protection(
        "the routing, the role's confinement and the confirmation",
        probes.pooled("psycopg"),
        "leak",
        (),
        ("the routing", "the confirmation"),
        rights_in_production,
    ),
    Protection("the prefix of Redis: the ACL user is behind", probes.key, "refused", (), ("the prefix",)),
    Protection("the prefix of Redis and the ACL user", probes.key, "leak", (), ("the prefix",), all_keys),
    Protection("SQLite's authorizer", probes.file(*ATTACHED), "leak", (), ("the authorizer",)),
    Protection("MariaDB's user locks", probes.user_lock, "harmed", (), ("the refusal of user locks",)),
    Protection(
        "mode schema, the first reading: the second is behind",
        probes.apart,
        "refused",
        (),
        ("the first reading",),
    ),
    Protection(
        "mode schema, both readings: the role's rights are behind",
        probes.apart,
        "refused",
        (),
        ("the first reading", "the second reading"),
    ),
    Protection(
        "mode schema, both readings and the role's rights",
        probes.apart,
        "leak",
        (),
        ("the first reading", "the second reading"),
        rights_beside_the_schema,
    ),
    # runs that are over
    Protection(
        "a killed run, at a connection", probes.killed("psycopg"), "done", (), ("the check for a live run",)
    ),
    Protection(
        "a killed run, at a pool", probes.killed("psycopg-pool"), "done", (), ("the check for a live run",)
    ),
    Protection("upkeep", probes.rolled_back, "refused", (), ("the upkeep",)),
    Protection("a stale list", probes.STALE, "done", (), ("the age of the list",), inside="lists"),
    Protection(
        "a list that is not signed", probes.FORGED, "done", (), ("the list's signature",), inside="lists"
    ),
    Protection("an older list", probes.OLDER, "done", (), ("the order of lists",), inside="lists"),
    Protection(
        "a killed run that is listed again",
        probes.REVIVED,
        "done",
        (),
        ("the memory of kills",),
        inside="lists",
    ),
    # marks
    Protection("the token's signature", probes.forged, "done", (), ("the token's signature",)),
    Protection(
        "the trace-id's signature", probes.matching_by_chance, "harmed", (), ("the trace-id's signature",)
    ),
    Protection("the token's end", probes.expired, "done", (), ("the token's end",)),
    Protection("contradictions", probes.contradicting, "done", (), ("the check for contradictions",)),
    Protection("replay", probes.replayed, "done", (), ("the memory of arrivals",)),
    Protection(
        "a run that is over: the check at the store is behind",
        probes.over,
        "refused",
        (),
        ("the check for runs that are over",),
    ),
    Protection(
        "a run that is over, at both",
        probes.over,
        "done",
        (),
        ("the check for runs that are over", "the check for a live run"),
    ),
    # the audit and its signature
    Protection(
        "the role's confinement: the knock sees it",
        probes.audited(),
        "not proven",
        (),
        (),
        entry_to_production,
    ),
    Protection(
        "the knock",
        probes.audited(expected="not proven"),
        "unnoticed",
        (),
        ("the knock",),
        inside="controller",
        amid=entry_to_production,
    ),
    Protection("the claims of real users' writes", probes.audited(), "not proven", (), ("the claims",)),
    Protection(
        "a run without marked work",
        probes.audited(expected="not proven", marked=False),
        "unnoticed",
        (),
        ("the look for marked work",),
        inside="controller",
    ),
    Protection(
        "a run without canaries",
        probes.audited(expected="not proven", canaries=0),
        "unnoticed",
        (),
        ("the look for canaries sent",),
        inside="controller",
    ),
    Protection(
        "the search for canaries",
        probes.audited(LEAKED, expected="leaked"),
        "unnoticed: it is not proven",
        (),
        ("the search for canaries",),
        inside="controller",
    ),
    Protection(
        "the search for canaries and the attribution",
        probes.audited(LEAKED, expected="leaked"),
        "unnoticed: it is proven",
        (),
        ("the search for canaries", "the attribution"),
        inside="controller",
    ),
    Protection(
        "the attribution",
        probes.audited(UNCLAIMED, expected="not proven"),
        "unnoticed",
        (),
        ("the attribution",),
        inside="controller",
    ),
    Protection(
        "the account of sessions",
        probes.audited(elsewhere=True, expected="not proven"),
        "unnoticed",
        (),
        ("the account of sessions",),
        inside="controller",
    ),
    Protection(
        "the look for claims elsewhere",
        probes.audited(wrong="soak_unlisted", expected="not proven"),
        "unnoticed",
        (),
        ("the look for claims elsewhere",),
        inside="controller",
    ),
    Protection(
        "the signature: its digests",
        probes.signed(probes.embellish),
        "unnoticed",
        (),
        ("the digests",),
        inside="controller",
    ),
    Protection(
        "the signature itself",
        probes.signed(probes.embellish_with_digests),
        "unnoticed",
        (),
        ("the signature",),
        inside="controller",
    ),
    Protection(
        "the signature: whose it is",
        probes.signed(probes.embellish_and_sign),
        "unnoticed",
        (),
        ("the signer",),
        inside="controller",
    ),
)
"""Every protection that is tried, by where it stands."""


def test_no_protection_is_forgotten():
    """Every hook the agent has is left out once, and everything that can be switched off is."""
    assert {name for row in PROTECTIONS for name in row.hooks} == set(HOOKS)
    assert {name for row in PROTECTIONS for name in row.patches} == set(protections.OFF)
    assert len({row.name for row in PROTECTIONS}) == len(PROTECTIONS)


@pytest.fixture(scope="module")
def ground(needs: Callable[[object, str], None]) -> Iterator[Ground]:
    needs(has_mariadb(), "mariadbd (the system's package mariadb-server)")
    with scratch_directory() as scratch, mutation_ground(scratch.path) as made:
        yield made


@contextmanager
def switched_off(ground: Ground, protection: Protection) -> Iterator[None]:
    """Have one protection off, and everything else on."""
    here = protection.patches if protection.inside == "service" else ()
    with ground.attached((*protection.hole, *protection.hooks), here):
        ground.service.call(attempts.import_libraries, list(protection.hooks))
        if protection.inside == "lists":
            ground.lists.service.call(protections.switch_off, list(protection.patches))
        elif protection.inside == "controller":
            protections.switch_off(protection.patches)
        try:
            with protection.given(ground):
                yield
        finally:
            if protection.inside == "lists":
                ground.lists.service.call(protections.switch_on)
            elif protection.inside == "controller":
                protections.switch_on()


@pytest.mark.parametrize("protection", PROTECTIONS, ids=lambda row: row.name)
def test_what_a_protection_prevents_happens_without_it(ground: Ground, protection: Protection):
    """Nothing is wrong with everything on; with that one off its probe finds what it is there to prevent."""
    # Given everything on: nothing is wrong
    with ground.attached(protection.hole), protection.amid(ground):
        assert protection.probe(ground) == []
    # When it is off
    with switched_off(ground, protection), protection.amid(ground):
        found = protection.probe(ground)
    # Then that shows
    assert any(wrong.startswith(protection.finds) for wrong in found), found
    assert protection.finds != "refused" or not any(wrong.startswith("leak") for wrong in found), found
