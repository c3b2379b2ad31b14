"""What Django remembers of its stores: neither side finds what the other left."""

from __future__ import annotations

import types
from typing import Any

from attached_service import Service, attempt, forget, is_refused, marked, noted
from django_project import project
from two_sides import Sides, TestRun

from perflab.shadow import django_memory, scope

Mark = dict[str, Any] | None


def use_caches(dsn: str, marks: list[Mark]) -> Any:
    """Write and read caches in turn, by way of Django's store and by an object that was put aside."""
    project(dsn)
    from django.core.cache import cache, caches
    from django.core.cache.backends.locmem import LocMemCache

    aside, aside_files = caches["default"], caches["files"]
    found: list[Any] = []
    for number, mark in enumerate(marks):
        with marked(mark):
            used = {"proxy": cache, "aside": aside, "files": caches["files"], "aside files": aside_files}
            for name, one in used.items():
                found.append([name, one.get(name), one.set(name, number), one.get(name)])
            found.append(["count", aside.add("n", 0), aside.incr("n")])
            found.append(["fresh", LocMemCache("one", {}).get("proxy")])
    with marked(marks[0]):
        cache.clear()
        caches["files"].clear()
    return found, [cache.get("proxy"), aside_files.get("files")]


def test_caches_in_memory_and_in_files_are_two(service: Service, sides: Sides, run: TestRun) -> None:
    """The first turn of each side finds nothing, the second what its own first left; also in kept objects."""
    # WHEN both sides take two turns each
    found, left = service.call(use_caches, sides.app, [run.mark(), None, run.mark(), None])
    # THEN
    expected: list[Any] = []
    for number, previous in enumerate((None, None, 0, 1)):
        names = ("proxy", "aside", "files", "aside files")
        expected += [[name, previous, None, number] for name in names]
        expected += [["count", previous is None, 1 if previous is None else 2], ["fresh", number]]
    assert found == expected
    # AND clearing one side's leaves the other's
    assert left == [3, 3]


def use_unknown_cache(dsn: str, mark: Mark) -> Any:
    project(dsn)
    from django.core.cache import caches

    forget()
    with marked(mark):
        said = attempt(lambda: caches["unknown"].get("x"))
    return said, caches["unknown"].get("x"), len(noted("refuse"))


def test_a_cache_nobody_knows_is_refused(service: Service, sides: Sides, run: TestRun) -> None:
    """Marked work is told its kind; ordinary work uses it."""
    said, ordinary, refusals = service.call(use_unknown_cache, sides.app, run.mark())
    assert is_refused(said, "OwnCache is not covered")
    assert (ordinary, refusals) == ("from a cache nobody knows", 1)


def use_sessions(dsn: str, mark: Mark) -> Any:
    project(dsn)
    import os

    from django.conf import settings
    from django.contrib.sessions.backends.file import SessionStore

    ordinary = SessionStore()
    ordinary["user"] = "ada"
    ordinary.save()
    with marked(mark):
        theirs = SessionStore(ordinary.session_key)
        found = dict(theirs.items())
        own = SessionStore()
        own["user"] = "test"
        own.save()
        own_again = SessionStore(own.session_key)["user"]
    seen = SessionStore(own.session_key).get("user")
    return (
        found,
        own_again,
        seen,
        sorted(os.listdir(settings.SESSION_FILE_PATH))
        == sorted(["perflab-shadow", f"sessionid{ordinary.session_key}"]),
    )


def test_sessions_in_files_are_two(service: Service, sides: Sides, run: TestRun) -> None:
    """A marked request has no session of a real user's, and leaves none among theirs."""
    assert service.call(use_sessions, sides.app, run.mark()) == [{}, "test", None, True]


TABLES = """
CREATE TABLE django_content_type (id serial PRIMARY KEY, app_label varchar(100), model varchar(100));
CREATE TABLE django_site (id int PRIMARY KEY, domain varchar(100), name varchar(50));
CREATE DOMAIN hstore AS text;
GRANT ALL ON ALL TABLES IN SCHEMA public TO {role};
INSERT INTO django_content_type VALUES ({number}, 'shop', 'item');
INSERT INTO django_site VALUES (1, '{side}.example', '{side}');
"""
GONE = "DROP TABLE django_content_type, django_site; DROP DOMAIN hstore"


def remember(dsn: str, marks: list[Mark]) -> Any:
    models = project(dsn)
    from django.conf import settings
    from django.contrib.contenttypes.models import ContentType
    from django.contrib.postgres import signals
    from django.contrib.sites.models import Site
    from django.db import connections

    settings.SITE_ID = 1
    found: list[Any] = []
    for mark in marks:
        with marked(mark):
            connections.close_all()  # other tests end sessions of this process at the server
            found.append([
                ContentType.objects.get_for_model(models.item).pk,
                ContentType._base_manager.model.objects.get_by_natural_key("shop", "item").pk,
                Site.objects.get_current().name,
                signals.get_hstore_oids("default")[0],
            ])  # fmt: skip
    with marked(marks[0]):
        Site.objects.clear_cache()
        ContentType.objects.clear_cache()
        signals.get_hstore_oids.cache_clear()
        emptied = len(Site.objects.get_current.__globals__["SITE_CACHE"])
    kept = len(Site.objects.get_current.__globals__["SITE_CACHE"])
    return found, emptied, kept, signals.get_hstore_oids.__wrapped__.cache_info().currsize


def test_content_types_sites_and_type_numbers_are_two(service: Service, sides: Sides, run: TestRun) -> None:
    """Ids that one side looked up are never what the other remembers, whoever came first."""
    # GIVEN the same rows with other ids on each side
    roles = {"production": "both_app", "shadow": sides.shadow_role}
    for number, (side, role) in enumerate(roles.items(), 1):
        sides.query(side, TABLES.format(number=number * 100, side=side, role=role))
    try:
        # WHEN marked and ordinary work look in turn
        found, emptied, left, numbers = service.call(remember, sides.app, [run.mark(), None] * 2)
    finally:
        for side in roles:
            sides.query(side, GONE)
    # THEN each sees its own
    assert found[0] == found[2]
    assert found[1] == found[3]
    assert found[0][:3] == [200, 200, "shadow"]
    assert found[1][:3] == [100, 100, "production"]
    assert found[0][3] != found[1][3]
    # AND forgetting what marked work knows leaves the rest
    assert (emptied, left, numbers) == (0, 1, 1)


def test_types_of_psycopg2_are_registered_for_the_shadows_connection_only() -> None:
    """Django registers them for the process, where a number may be another type in production."""
    # GIVEN Django's module as it is with psycopg 2
    told: list[Any] = []
    extensions = types.SimpleNamespace(
        new_array_type=lambda numbers, name, _: (name, numbers),
        register_type=lambda made, where: told.append(["array", made, where]),
    )

    def numbers(alias: str) -> Any:
        return ((7,), (8,))

    numbers.__wrapped__ = numbers  # type: ignore[attr-defined]  # as functools.lru_cache leaves it
    module = types.SimpleNamespace(
        NO_DB_ALIAS="__no_db__",
        is_psycopg3=False,
        get_hstore_oids=numbers,
        get_citext_oids=numbers,
        register_type_handlers=lambda connection, **_: told.append(["process-wide", connection.alias]),
        register_hstore=lambda where, **given: told.append(["hstore", where, given]),
        psycopg2=types.SimpleNamespace(extensions=extensions, STRING=str),
    )
    django_memory.hook_postgres_types(module)
    connection = types.SimpleNamespace(vendor="postgresql", alias="default", connection="the connection")
    # WHEN each side connects
    module.register_type_handlers(connection, signal=None)
    token = scope.enter(scope.Shadow(1, "token", 1))
    try:
        module.register_type_handlers(connection, signal=None)
    finally:
        scope.leave(token)
    # THEN
    assert told == [
        ["process-wide", "default"],
        ["hstore", "the connection", {"oid": (7,), "array_oid": (8,)}],
        ["array", ("citext[]", (8,)), "the connection"],
    ]
