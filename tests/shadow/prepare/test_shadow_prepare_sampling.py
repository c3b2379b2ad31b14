"""Rows come masked, with those they refer to, from one moment; personal ones never by themselves."""

from __future__ import annotations

from dataclasses import replace

import psycopg
import pytest
from live_production import MASKS, SAMPLE, wish, writers
from prepared_server import enter, url_of

from perflab.config import Sample
from perflab.demo.stores import PostgresServer
from perflab.errors import ConfigError, ShadowError
from perflab.shadow.prepare import plan_postgresql, prepare


def test_children_have_their_parents(live: PostgresServer) -> None:
    """One visit brings its person, that one's bosses up to the top, and the country; nothing else comes."""
    # When
    with writers(live):
        made = prepare(wish(live, keep_out="revoke", sample=SAMPLE))

    # Then
    assert made.rows == {"public.countries": 3, "public.people": 20, "public.visits": 1}
    with enter(live, "shop_shadow") as session:
        people = session.execute(
            "SELECT id, email, phone, boss, country, shouted FROM people ORDER BY id"
        ).fetchall()
        assert [row[0] for row in people] == list(range(1, 21))
        assert [row[3] for row in people] == [None, *range(1, 20)]
        assert all(row[5] == row[1].upper() for row in people)
        assert session.execute("SELECT title FROM countries ORDER BY code").fetchall() == [
            ("中国",),
            ("Germany",),
            ("France",),
        ]
        # and references hold: a new row is checked against them
        session.execute("INSERT INTO visits (person) VALUES (20)")
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            session.execute("INSERT INTO visits (person) VALUES (21)")


def test_no_value_of_a_masked_column_arrives(live: PostgresServer) -> None:
    """Neither in the table nor where another one refers to it; joins still find each other."""
    # When
    sample = Sample(tables={"secrets_of": "all"}, masks={**MASKS, "secrets_of.word": "hash"})
    prepare(wish(live, keep_out="revoke", sample=sample))

    # Then
    with enter(live, "shop_shadow") as session:
        values = session.execute("SELECT email, phone FROM people").fetchall()
        assert values
        assert not any("corp" in email or "0013" in phone for email, phone in values)
        assert session.execute("SELECT count(*) FROM secrets_of JOIN people USING (email)").fetchone() == (1,)


def test_personal_columns_are_refused_until_something_is_said(live: PostgresServer) -> None:
    """Those of parents, too; a mask or --unmasked says it."""
    sample = Sample(tables={"visits": 1}, masks={"people.email": "email"})
    with pytest.raises(
        ConfigError, match=r"1 columns look personal and have no mask: public.people.phone; declare"
    ):
        plan_postgresql(wish(live, sample=sample))
    plan_postgresql(wish(live, sample=sample, unmasked=["people.phone"]))
    plan_postgresql(wish(live, sample=Sample(tables={"countries": "all"})))


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (Sample(tables={"nothing": 1}), "the sample names the table 'nothing'"),
        (Sample(masks={"people.nothing": "null"}), "has no column 'nothing'"),
        (Sample(masks={"people.id": "null"}), "may not be NULL"),
        (Sample(masks={"people.email": "fixed:x"}), "its values are unique"),
        (
            Sample(masks={"secrets_of.email": "email"}),
            "secrets_of.email refers to public.people.email: mask that",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(
    live: PostgresServer, sample: Sample, message: str
) -> None:
    """By name."""
    with pytest.raises(ConfigError, match=message):
        plan_postgresql(wish(live, sample=sample))


def test_ids_go_on_after_the_sample(live: PostgresServer) -> None:
    """Identity columns and serials, beyond production's and beyond masked ids."""
    # Given
    sample = Sample(rows=0, tables={"visits": 30}, masks={**MASKS, "visits.id": "hash"})
    prepare(wish(live, keep_out="revoke", sample=sample))

    # Then
    with enter(live, "shop_shadow") as session:
        person = session.execute("INSERT INTO people (email) VALUES ('x') RETURNING id").fetchone()
        assert person == (1_000_000_041,)
        largest = session.execute("SELECT max(id) FROM visits").fetchone()
        visit = session.execute("INSERT INTO visits (person) VALUES (5) RETURNING id").fetchone()
        assert largest is not None
        assert visit is not None
        assert visit[0] == max(1_000_000_027, largest[0] + 1)


def test_rows_come_from_one_moment_and_partitions_too(live: PostgresServer) -> None:
    """However much is written meanwhile, each row has its parents; parts come through their table."""
    with psycopg.connect(url_of(live, "shop")) as session:
        session.execute("INSERT INTO parts VALUES (1, 1), (2, 1)")
    with writers(live):
        made = prepare(
            wish(live, keep_out="revoke", sample=Sample(rows=10, masks=MASKS), unmasked=["countries.title"])
        )
    assert made.rows["public.parts"] == 2
    assert made.rows["public.clicks"] == 10
    assert made.rows["public.people"] == 40  # the ten newest, and their bosses
    with psycopg.connect(url_of(live, "shop")) as session:
        session.execute("DELETE FROM parts")


def test_a_shadow_that_refuses_masked_rows_says_which(live: PostgresServer) -> None:
    """A check that a masked value breaks is told with its table, and the next attempt builds anew."""
    # Given
    with psycopg.connect(url_of(live, "shop")) as session:
        session.execute("ALTER TABLE people ADD CHECK (phone LIKE '+86%')")
    bad = Sample(tables={"people": 1}, masks={"people.email": "email", "people.phone": "fixed:none"})

    # When
    with pytest.raises(
        ShadowError, match=r"does not take the sampled rows of public.people: .*check constraint"
    ):
        prepare(wish(live, keep_out="revoke", sample=bad))

    # Then
    good = replace(wish(live), sample=Sample(tables={"people": 1}, masks=MASKS))
    assert prepare(replace(good, keep_out="revoke")).rows["public.people"] == 40
