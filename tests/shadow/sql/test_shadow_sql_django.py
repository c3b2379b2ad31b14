"""Django's ORM on a real server: marked work has its own connections, transactions and callbacks."""

from __future__ import annotations

import asyncio
import json
import types
from collections.abc import Callable
from typing import Any

import pytest
from attached_service import (
    Service,
    attempt,
    forget,
    is_refused,
    kept,
    marked,
    noted,
    plain_of,
)
from django_project import project
from two_sides import Sides, TestRun

from perflab.shadow.sql import django as hook

WHO = "SELECT current_database(), session_user"
Mark = dict[str, Any] | None


def _who(connection: Any) -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(WHO)
        return list(cursor.fetchone())


def _statements(models: Any, alias: str) -> dict[str, Callable[[], Any]]:
    """Return one function per kind of statement; each is called in turn, on empty tables."""
    from django.db import IntegrityError, connections, transaction
    from django.db import models as orm

    item, stock, connection = (
        models.item.objects.using(alias),
        models.stock.objects.using(alias),
        connections[alias],
    )
    called: list[str] = []

    def notes() -> list[str]:
        return list(item.order_by("note").values_list("note", flat=True))

    def bulk_create() -> Any:
        made = item.bulk_create([models.item(note="b1"), models.item(note="b2")])
        return len({one.pk for one in made} - {None}), notes()

    def nested() -> Any:
        with transaction.atomic(using=alias):
            item.create(note="outer")
            transaction.on_commit(lambda: called.append("kept"), using=alias)
            try:
                with transaction.atomic(using=alias):
                    item.create(note="inner")
                    transaction.on_commit(lambda: called.append("gone"), using=alias)
                    raise KeyError
            except KeyError:
                pass
            with transaction.atomic(using=alias):
                item.create(note="second")
            before = list(called)
        return before, called, notes()

    def rolled_back() -> Any:
        with transaction.atomic(using=alias):
            item.create(note="never")
            transaction.set_rollback(True, using=alias)
        return notes()

    def locked() -> Any:
        with transaction.atomic(using=alias):
            one = stock.select_for_update().get(pk=1)
            one.amount = orm.F("amount") - 1
            one.save(update_fields=["amount"])
        return stock.get(pk=1).amount

    def broken() -> Any:
        try:
            stock.create(pk=1, amount=1)
        except IntegrityError as error:
            return type(error).__name__, stock.count()

    def too_little() -> Any:
        try:
            with transaction.atomic(using=alias):
                stock.filter(pk=1).update(amount=orm.F("amount") - 1000)
        except IntegrityError as error:
            return type(error).__name__, stock.get(pk=1).amount

    def copied() -> Any:
        with connection.cursor() as cursor:
            with cursor.copy("COPY item (note) FROM STDIN") as copy:
                copy.write_row(["copied"])
            with cursor.copy("COPY (SELECT note FROM item WHERE note = 'copied') TO STDOUT") as copy:
                return [bytes(line).decode() for line in copy]

    def by_hand() -> Any:
        transaction.set_autocommit(False, using=alias)
        try:
            item.create(note="by hand")
            transaction.commit(using=alias)
            item.create(note="never")
            transaction.rollback(using=alias)
        finally:
            transaction.set_autocommit(True, using=alias)
        return notes()

    def schema() -> Any:
        class Made(orm.Model):
            note = orm.TextField()

            class Meta:
                app_label, db_table = "shop", "made"

        with connection.schema_editor() as editor:
            editor.create_model(Made)
        there = "made" in connection.introspection.table_names()
        with connection.schema_editor() as editor:
            editor.delete_model(Made)
        return there, "made" in connection.introspection.table_names()

    def many() -> Any:
        with connection.cursor() as cursor:
            cursor.executemany("INSERT INTO item (note) VALUES (%s)", [["m1"], ["m2"]])
            return cursor.rowcount

    def function() -> Any:
        with connection.cursor() as cursor:
            cursor.execute("SELECT add_item(%s)", ["by a function"])
        return notes()

    async def in_a_loop() -> Any:
        made = await item.acreate(note="async")
        found = [one.note async for one in item.filter(pk=made.pk)]
        await item.filter(pk=made.pk).adelete()
        return found

    return {
        "create": lambda: item.create(note="a").note,
        "bulk_create": bulk_create,
        "get_or_create": lambda: [item.get_or_create(note="a")[1], item.get_or_create(note="c")[1]],
        "update": lambda: item.filter(note="c").update(note="d"),
        "delete": lambda: item.filter(note="d").delete()[0],
        "upsert": lambda: [
            stock.update_or_create(pk=1, defaults={"amount": n})[1] for n in (5, 7)
        ] + [stock.get(pk=1).amount],
        "conflict": lambda: stock.bulk_create(
            [models.stock(pk=1, amount=9)],
            update_conflicts=True,
            unique_fields=["id"],
            update_fields=["amount"],
        )[0].amount,
        "nested": nested,
        "rolled back": rolled_back,
        "select_for_update": locked,
        "broken": broken,
        "too little": too_little,
        "raw": lambda: [one.note for one in item.raw("SELECT * FROM item WHERE note = %s", ["a"])],
        "aggregate": lambda: item.aggregate(n=orm.Count("id"))["n"],
        "iterator": lambda: [one.note for one in item.order_by("note").iterator(chunk_size=2)],
        "exists": lambda: item.filter(note="a").exists(),
        "copy": copied,
        "by hand": by_hand,
        "executemany": many,
        "function": function,
        "schema": schema,
        "explain": lambda: "Scan" in item.filter(note="a").explain(),
        "async": lambda: asyncio.run(in_a_loop()),
        "time zone": lambda: _one(connection, "SHOW timezone"),
        "database": lambda: _who(connection),
    }  # fmt: skip


def _one(connection: Any, text: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(text)
        return cursor.fetchone()[0]


def do_everything(dsn: str, alias: str, mark: Mark) -> dict[str, Any]:
    models = project(dsn)
    with marked(mark):
        return {kind: plain_of(attempt(do)) for kind, do in _statements(models, alias).items()}


@pytest.mark.parametrize("alias", ["default", "pooled"])
def test_every_kind_of_statement_is_the_same_on_its_own_side(
    service: Service, plain: Service, sides: Sides, run: TestRun, alias: str
) -> None:
    """Twenty-five kinds: ordinary work gets what it gets unattached, marked work the same from the shadow."""
    # GIVEN what an unattached process is answered
    expected = plain.call(do_everything, sides.app, alias, None)
    assert not any("Error: " in str(said) for said in expected.values()), expected
    rows = sides.notes("production")
    assert sides.notes("shadow") == []
    sides.empty()
    # WHEN marked and then ordinary work do the same in one attached process and thread
    by_marked = service.call(do_everything, sides.app, alias, run.mark())
    written = sides.notes("shadow")
    assert sides.notes("production") == []
    by_ordinary = service.call(do_everything, sides.app, alias, None)
    # THEN both are answered so, each on its side
    assert by_ordinary == expected
    assert by_marked == expected | {"database": [sides.shadow_database, sides.shadow_role]}
    assert sides.notes("production") == rows == written == sides.notes("shadow")


def take_turns(dsn: str, marks: list[Any]) -> Any:
    from django.db import close_old_connections, connection, connections

    project(dsn)
    connections.close_all()
    met = []
    for mark in marks:
        with marked(mark):
            connection.ensure_connection()
            met.append([id(connection.connection), connection.connection.info.dbname])
            close_old_connections()
    with marked(marks[0]):
        initialised = [alias for alias in connections if hasattr(connections._connections, alias)]
        connections.close_all()
        closed = connection.connection is None
    with marked(marks[1]):
        return met, initialised, closed, connection.connection is None


def test_each_side_keeps_its_own_connection_over_requests(
    service: Service, sides: Sides, run: TestRun
) -> None:
    """A connection that is kept for the next request waits for one of its own side."""
    # WHEN marked and ordinary work take turns in one thread
    marks = [run.mark(), None] * 3
    met, initialised, closed, other_closed = service.call(take_turns, sides.app, marks)
    # THEN there are two connections, each met by its side only
    assert len({number for number, _ in met}) == 2
    assert [name for _, name in met] == [sides.shadow_database, sides.production_database] * 3
    # AND what closes all connections of one side leaves the other's
    assert "default" in initialised
    assert (closed, other_closed) == (True, False)


def keep_and_use(dsn: str, first: Mark, then: Mark) -> Any:
    from django.db import connections

    project(dsn)
    connections.close_all()
    with marked(first):
        kept["wrapper"] = connections["default"]
        kept["wrapper"].ensure_connection()
    forget()
    with marked(then):
        wrapper = kept["wrapper"]
        with wrapper.cursor() as cursor:
            cursor.execute(WHO)
            who = cursor.fetchone()
        wrapper.set_autocommit(False)
        with wrapper.cursor() as cursor:
            cursor.execute("INSERT INTO item (note) VALUES ('by way of a kept object')")
        wrapper.savepoint_rollback(wrapper.savepoint())
        wrapper.commit()
        wrapper.set_autocommit(True)
        wrapper.close()
    with marked(first):
        alive = wrapper.connection is not None and wrapper.is_usable()
    return list(who), alive, noted("step_aside")


def test_a_connection_object_put_aside_leads_to_the_side_that_uses_it(
    service: Service, sides: Sides, run: TestRun
) -> None:
    """Used by the other side a kept object works on that side, and its own connection is not touched."""
    who, alive, aside = service.call(keep_and_use, sides.app, None, run.mark())
    assert (who, alive, aside) == ([sides.shadow_database, sides.shadow_role], True, [])
    assert (len(sides.notes("shadow")), sides.notes("production")) == (1, [])
    who, alive, aside = service.call(keep_and_use, sides.app, run.mark(), None)
    assert (who, alive) == ([sides.production_database, "both_app"], True)
    assert aside[0] == ["django: ordinary work found a connection object of marked work"]
    assert (len(sides.notes("shadow")), len(sides.notes("production"))) == (1, 1)


def use_own(dsn: str, mark: Mark) -> Any:
    from django.db import connections

    project(dsn)
    own = connections["default"].copy()
    own.ensure_connection()
    driver = connections["default"]
    driver.ensure_connection()
    with marked(mark):
        said = [
            attempt(lambda: _who(own)),
            attempt(own.commit),
            attempt(lambda: driver.connection.execute(WHO)),
            attempt(lambda: _who(connections["elsewhere"])),
            attempt(lambda: _who(connections["default"].copy())),
        ]
    said.append(_who(own))
    own.close()
    return said


def test_what_leads_to_production_is_refused(service: Service, sides: Sides, run: TestRun) -> None:
    """An object of the service's own, its driver's connection and an unknown database: nothing is sent."""
    said = service.call(use_own, sides.app, run.mark())
    assert is_refused(said[0], "outside django.db.connections")
    assert is_refused(said[1], "outside django.db.connections")
    assert is_refused(said[2], "opened for production before the marked request")
    assert is_refused(said[3], "this database is not one of the target's stores")
    assert said[4] == [sides.shadow_database, sides.shadow_role]
    assert said[5] == [sides.production_database, "both_app"]


def write_and_claim(dsn: str) -> Any:
    from django.db import transaction

    models = project(dsn)
    item = models.item.objects
    forget()
    item.create(note="alone")
    with transaction.atomic():
        item.bulk_create([models.item(note="x"), models.item(note="y")])
        try:
            with transaction.atomic():
                item.create(note="taken back")
                raise KeyError
        except KeyError:
            item.filter(note="x").update(note="z")
    with transaction.atomic():
        item.create(note="never")
        transaction.set_rollback(True)
    item.get(note="alone").delete()
    return [arguments[:2] for arguments in noted("claim")]


def test_ordinary_writes_are_claimed(service: Service, sides: Sides, run: TestRun) -> None:
    """What Django commits is claimed by table, operation and rows, savepoints and rollbacks considered."""
    claims = service.call(write_and_claim, sides.app)
    assert [(store, json.loads(said)) for store, said in claims] == [
        ("orders", [["item", "insert", 1]]),
        ("orders", [["item", "insert", 2], ["item", "update", 1]]),
        ("orders", [["item", "delete", 1]]),
    ]


def begin_atomic(dsn: str, mark: Mark) -> None:
    from django.db import transaction

    models = project(dsn)
    kept["atomic"] = transaction.atomic()
    with marked(mark):
        kept["atomic"].__enter__()
        models.item.objects.create(note="open")


def end_atomic(dsn: str, mark: Mark, next_mark: Mark) -> Any:
    from django.db import close_old_connections, transaction

    models = project(dsn)

    def go_on() -> None:
        try:
            models.item.objects.create(note="too late")
        except BaseException as error:
            kept.pop("atomic").__exit__(type(error), error, None)
            raise

    with marked(mark):
        said = [
            attempt(go_on),
            attempt(lambda: models.item.objects.create(note="too late")),
            attempt(close_old_connections),
        ]
    with marked(next_mark):
        said.append(models.item.objects.count())
    said += [models.item.objects.count(), transaction.get_autocommit()]
    return said


def test_a_run_that_ends_in_a_transaction_leaves_nothing(
    service: Service, sides: Sides, run: TestRun
) -> None:
    """Marked work is refused at its next statement and rolled back; the next run finds a sound connection."""
    # GIVEN marked work in an atomic block
    mark = run.mark()
    service.call(begin_atomic, sides.app, mark)
    # WHEN the run is over
    run.remove()
    next_run = sides.begin_run()
    said = service.call(end_atomic, sides.app, mark, next_run.mark())
    next_run.remove()
    # THEN
    assert is_refused(said[0], "the run is not live any more")
    assert is_refused(said[1], "the run is not live any more")
    assert said[2:] == [None, 0, 0, True]
    assert sides.notes("shadow") == sides.notes("production") == []


def test_a_django_that_keeps_its_connections_elsewhere_is_not_hooked() -> None:
    """The hook says so, and the agent reports it as failed: a run is refused while Django is in use."""

    class Handler:
        def __init__(self, settings: Any) -> None:
            self.pools = settings

    module = types.SimpleNamespace(BaseConnectionHandler=Handler, Local=dict)
    with pytest.raises(TypeError, match="in a place that is not known"):
        hook.hook_connections(module)
