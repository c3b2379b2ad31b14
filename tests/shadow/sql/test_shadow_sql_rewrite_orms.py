"""What SQLAlchemy and Django send as a rule is not refused in modes ``schema`` and ``table``."""

from __future__ import annotations

from typing import Any

from attached_service import forget, marked, noted
from tables_apart import Apart
from two_sides import TestRun


def through_sqlalchemy(dsn: str, mark: dict[str, Any]) -> list[Any]:
    """Do a unit of work: add, flush, load, join, update, bulk, upsert, lock, delete, savepoint."""
    import sqlalchemy as sa
    from sqlalchemy import orm
    from sqlalchemy.dialects.postgresql import JSONB, insert

    class Mapped(orm.DeclarativeBase):
        pass

    class Item(Mapped):
        __tablename__ = "item"
        id = sa.Column(sa.BigInteger, primary_key=True)
        note = sa.Column(sa.Text)
        at = sa.Column(sa.DateTime(timezone=True), server_default=sa.func.now())
        data = sa.Column(JSONB)

    class Part(Mapped):
        __tablename__ = "part"
        id = sa.Column(sa.BigInteger, sa.Identity(), primary_key=True)
        name = sa.Column(sa.String(40))
        item_id = sa.Column(sa.ForeignKey("item.id"))
        item = orm.relationship(Item, backref="parts")

    engine = sa.create_engine(dsn.replace("postgresql://", "postgresql+psycopg://"))
    seen: list[Any] = []
    forget()
    with marked(mark), orm.Session(engine) as session:
        items = [Item(note=f"orm {n}", data={"n": n}) for n in range(3)]
        session.add_all([*items, Part(name="p", item=items[0]), Part(name="q", item=items[0])])
        session.commit()
        seen.append(items[0].id > 1_000_000_000)
        joined = sa.select(Item.note, sa.func.count(Part.id)).join(Part, isouter=True).group_by(Item.note)
        seen.append([list(row) for row in session.execute(joined.order_by(Item.note))])
        loaded = session.scalars(
            sa.select(Item).options(orm.selectinload(Item.parts)).where(Item.data["n"].as_integer() == 0)
        )  # type: ignore[attr-defined]  # made by backref
        seen.append([len(item.parts) for item in loaded])  # type: ignore[attr-defined]
        eager = session.scalars(
            sa.select(Item).options(orm.joinedload(Item.parts)).limit(1).order_by(Item.id)
        )  # type: ignore[attr-defined]
        seen.append(len(eager.unique().all()))
        items[1].note = "changed"
        session.flush()
        session.execute(sa.update(Item).where(Item.note == "orm 2").values(note=sa.func.upper(Item.note)))
        session.execute(sa.insert(Part), [{"name": f"bulk {n}", "item_id": items[2].id} for n in range(5)])
        upsert = insert(Part).values(name="p", item_id=items[1].id)
        session.execute(
            upsert.on_conflict_do_update(index_elements=["name"], set_={"item_id": upsert.excluded.item_id})
        )
        session.execute(sa.select(Item).where(Item.id == items[1].id).with_for_update(skip_locked=True))
        recursive = sa.select(sa.literal(1).label("n")).cte("numbers", recursive=True)
        recursive = recursive.union_all(sa.select(recursive.c.n + 1).where(recursive.c.n < 4))
        seen.append(session.scalar(sa.select(sa.func.sum(recursive.c.n))))
        with session.begin_nested():
            session.delete(session.scalars(sa.select(Part).where(Part.name == "q")).one())
        session.execute(
            sa.delete(Part).where(Part.item_id.in_(sa.select(Item.id).where(Item.note == "ORM 2")))
        )
        session.delete(items[2])
        session.commit()
        seen.append(list(session.scalars(sa.select(Item.note).order_by(Item.note))))
        seen.append(session.scalar(sa.select(sa.exists().where(Part.name == "p"))))
        seen.append(sa.inspect(engine).has_table("item") is not None)
    engine.dispose()
    return [seen, noted("refuse")]


def test_sqlalchemy_goes_on_as_usual(apart: Apart, run: TestRun) -> None:
    """SQLAlchemy's unit of work, bulk inserts, eager loading, upserts, locks, savepoints: none is refused."""
    before = apart.production()
    seen, refused = apart.service.call(through_sqlalchemy, apart.url, run.mark())
    assert refused == []
    assert seen == [
        True,
        [["orm 0", 2], ["orm 1", 0], ["orm 2", 0]],
        [2],
        1,
        10,
        ["changed", "orm 0"],
        True,
        True,
    ]
    assert apart.notes() == ["changed", "orm 0"]
    assert apart.production() == before


def through_django(dsn: str, mark: dict[str, Any]) -> list[Any]:
    """Create, get, filter, annotate, update, bulk, upsert, lock, iterate, delete."""
    import sys
    import types
    from urllib.parse import urlsplit

    import django
    from django.conf import settings

    package = types.ModuleType("shop")  # an installed application without a file, so that cascades are known
    package.__path__ = ["/"]
    sys.modules["shop"] = package
    url = urlsplit(dsn)
    engine = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": url.path[1:],
        "USER": url.username,
        "PASSWORD": url.password,
        "HOST": url.hostname,
        "PORT": url.port,
    }
    settings.configure(
        DATABASES={"default": engine}, INSTALLED_APPS=["shop"], USE_TZ=True, TIME_ZONE="Asia/Shanghai"
    )
    django.setup()
    from django.db import connection, models, transaction
    from django.db.models import Count, F, Value
    from django.db.models.functions import Concat, TruncMonth, Upper

    class Item(models.Model):  # type: ignore[misc]  # Django without its stubs
        note = models.TextField()
        at = models.DateTimeField(auto_now_add=True)
        data = models.JSONField(null=True)

        class Meta:
            app_label, db_table = "shop", "item"

    class Part(models.Model):  # type: ignore[misc]
        name = models.CharField(max_length=40, unique=True)
        item = models.ForeignKey(Item, models.CASCADE)

        class Meta:
            app_label, db_table = "shop", "part"

    seen: list[Any] = []
    forget()
    with marked(mark):
        with transaction.atomic():
            one = Item.objects.create(note="django", data={"a": [1]})
            Part.objects.bulk_create([Part(name=f"part {n}", item=one) for n in range(3)])
        seen.append(one.id > 1_000_000_000)
        seen.append(Item.objects.get(pk=one.pk, note__icontains="JAN").note)
        seen.append(
            Item.objects.filter(data__a__0=1)
            .annotate(n=Count("part"), m=TruncMonth("at"))
            .values_list("n", flat=True)[0]
        )
        seen.append(
            list(
                Part.objects.select_related("item")
                .filter(item__note="django")
                .values_list("name", "item__note")[:1][0]
            )
        )
        with transaction.atomic():
            locked = Item.objects.select_for_update().get(pk=one.pk)
            locked.note = "saved"
            locked.save()
            with transaction.atomic():
                Part.objects.filter(name="part 0").update(name=Concat(Upper("name"), Value("!")))
        Part.objects.bulk_create(
            [Part(name="part 1", item=one)],
            update_conflicts=True,
            update_fields=["item"],
            unique_fields=["name"],
        )
        parts = list(Part.objects.order_by("pk"))
        for part in parts:
            part.name += "?"
        Part.objects.bulk_update(parts, ["name"])
        Part.objects.get_or_create(name="made", item=one)
        Part.objects.update_or_create(name="made", defaults={"item": one})
        Item.objects.filter(pk=one.pk).update(data=None, note=Concat(F("note"), Value("2")))
        seen.append(sorted(part.name for part in Part.objects.iterator(chunk_size=2)))
        seen.append(
            [Part.objects.exists(), Part.objects.count(), Item.objects.aggregate(Count("id"))["id__count"]]
        )
        Part.objects.filter(item__in=Item.objects.filter(note="saved2"), name__in=["made"]).delete()
        two = Item.objects.create(note="deleted")
        Part.objects.create(name="with it", item=two)
        two.delete()
        seen.append([Item.objects.values_list("note", flat=True)[0], Part.objects.count()])
        connection.close()
    return [seen, noted("refuse")]


def test_django_goes_on_as_usual(apart: Apart, run: TestRun) -> None:
    """Django 5's managers, bulk operations, upserts, locks, server-side cursors: none is refused."""
    before = apart.production()
    seen, refused = apart.service.call(through_django, apart.url, run.mark())
    assert refused == []
    assert seen == [
        True,
        "django",
        3,
        ["part 0", "django"],
        ["PART 0!?", "made", "part 1?", "part 2?"],
        [True, 4, 1],
        ["saved2", 3],
    ]
    assert apart.notes() == ["saved2"]
    assert apart.production() == before
