"""A production in use: people with keys to one another, and sessions that write all the time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from attached_service import wait_for
from prepared_server import PASSWORD, url_of

from perflab.config import Sample
from perflab.demo.stores import PostgresServer
from perflab.shadow.prepare import Wish

PEOPLE = """
CREATE TABLE countries (code char(2) PRIMARY KEY, title text NOT NULL);
CREATE TABLE people (id serial PRIMARY KEY, email varchar(60) UNIQUE, phone text, boss int REFERENCES people,
    country char(2) REFERENCES countries, shouted text GENERATED ALWAYS AS (upper(email)) STORED);
CREATE TABLE visits (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, person int NOT NULL REFERENCES people);
CREATE TABLE clicks (n bigserial, at timestamptz DEFAULT now());
CREATE TABLE secrets_of (email varchar(60) REFERENCES people (email), word text);
INSERT INTO countries VALUES ('de', 'Germany'), ('cn', '中国'), ('fr', 'France');
INSERT INTO people (email, phone, boss, country)
    SELECT 'max' || i || '@corp.example', '+86 138 0013 ' || 8000 + i, nullif(i - 1, 0), 'de'
      FROM generate_series(1, 40) i;
INSERT INTO visits (person) SELECT 5 FROM generate_series(1, 25);
INSERT INTO visits (person) VALUES (20);
INSERT INTO secrets_of VALUES ('max3@corp.example', 'x');
"""
TABLES = "countries, people, visits, clicks, secrets_of"
MASKS = {"people.email": "email", "people.phone": "phone"}
SAMPLE = Sample(tables={"visits": 1, "countries": "all"}, masks=MASKS)


@contextmanager
def people(server: PostgresServer) -> Iterator[None]:
    """Have them in production for a while."""
    with psycopg.connect(url_of(server, "shop")) as session:
        session.execute(PEOPLE)
    try:
        yield
    finally:
        with psycopg.connect(url_of(server, "shop")) as session:
            session.execute(f"DROP TABLE {TABLES}")


@contextmanager
def writers(server: PostgresServer, count: int = 3) -> Iterator[list[int]]:
    """Write in production from several sessions, and hold one open transaction; yields what was written."""
    end = threading.Event()
    written = [0] * count
    trouble: list[BaseException] = []

    def write(which: int) -> None:
        try:
            with psycopg.connect(url_of(server, "shop"), autocommit=True) as session:
                while not end.is_set():
                    session.execute("INSERT INTO clicks DEFAULT VALUES")
                    session.execute("UPDATE people SET phone = phone WHERE id = %s", (which + 1,))
                    written[which] += 1
                    end.wait(0.002)
        except BaseException as error:
            trouble.append(error)

    threads = [threading.Thread(target=write, args=(which,)) for which in range(count)]
    with psycopg.connect(url_of(server, "shop")) as holder:
        holder.execute("INSERT INTO clicks DEFAULT VALUES")
        for thread in threads:
            thread.start()
        try:
            wait_for(lambda: all(written) or trouble, "the writers to begin")
            yield written
        finally:
            end.set()
            for thread in threads:
                thread.join()
            holder.rollback()
    assert not trouble


def wish(server: PostgresServer, **changes: object) -> Wish:
    """Wish for the tests' shadow, with changes."""
    ordinary: dict[str, object] = {
        "admin_dsn": server.admin_dsn,
        "production": "shop",
        "shadow": "shop_shadow",
        "role": "shop_shadow",
        "password": PASSWORD,
        "mask_key": b"key",
    }
    return Wish(**{**ordinary, **changes})  # type: ignore[arg-type]  # names and types are the caller's
