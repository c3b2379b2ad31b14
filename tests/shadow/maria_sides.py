"""A production and a shadow side of a database on a real MariaDB, and services attached to them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from attached_service import Service
from mariadb_server import MariaServer
from two_sides import KEY, TestRun

from perflab.cli.attach import attached_environment
from perflab.config import Secret, Store, Target
from perflab.shadow.control import ControlPublisher

SHOP, SHADOW, APP, ROLE, PASSWORD = "maria_shop", "maria_shadow", "maria_app", "maria_role", "secret"
SCHEMA = """
CREATE TABLE item (
    id int AUTO_INCREMENT PRIMARY KEY, note varchar(200) NOT NULL, owner varchar(100) DEFAULT (user()));
CREATE TABLE stock (id int PRIMARY KEY, amount int CHECK (amount >= 0));
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (id int, FOREIGN KEY (id) REFERENCES parent (id));
CREATE SEQUENCE numbers;
CREATE PROCEDURE add_item(text varchar(200)) INSERT INTO item (note) VALUES (text);
CREATE FUNCTION noted(text varchar(200)) RETURNS int DETERMINISTIC
    RETURN (SELECT count(*) FROM item WHERE note = text);
"""
TABLES = ("item", "stock", "child", "parent")


@dataclass
class MariaSides:
    """Where both sides are; ``login`` is what the service is configured with."""

    target: Target
    publisher: ControlPublisher
    server: MariaServer
    production_database: str = SHOP
    shadow_database: str = SHADOW
    shadow_user: str = ROLE

    @property
    def login(self) -> dict[str, Any]:
        """What a service connects with."""
        port = self.server.port
        return {"host": "127.0.0.1", "port": port, "user": APP, "password": PASSWORD,
                "database": self.production_database}  # fmt: skip

    def begin_run(self, lasts_s: int = 600) -> TestRun:
        """Make a run live."""
        return TestRun(self.publisher, int(time.time()) + lasts_s)

    def query(self, side: str, text: str) -> list[tuple[Any, ...]]:
        """Ask the 'production' or 'shadow' database, as superuser, past the agent."""
        with self.server.connect(SHOP if side == "production" else SHADOW) as session:
            cursor = session.cursor()
            cursor.execute(text)
            return list(cursor.fetchall())

    def notes(self, side: str) -> list[str]:
        """Return the notes of the items of a side."""
        return [note for (note,) in self.query(side, "SELECT note FROM item ORDER BY note")]

    def empty(self) -> None:
        """Empty both sides."""
        for side in ("production", "shadow"):
            for table in TABLES:
                self.query(side, f"DELETE FROM {table}")


def make_sides(server: MariaServer, directory: Path, shadow: MariaServer, shop: str = SHOP) -> MariaSides:
    """Set both sides up, the shadow on the same or on another server."""
    _make_database(server, shop, APP)
    _make_database(shadow, SHADOW, ROLE)
    urls = f"mariadb://127.0.0.1:{server.port}/{shop}", shadow.url(SHADOW, ROLE, PASSWORD)
    return sides_of(server, directory, *urls, shop)


def sides_of(server: MariaServer, directory: Path, production: str, shadow: str, shop: str) -> MariaSides:
    """Configure a target whose one store has these URLs."""
    secret = {"control_key": KEY, "mariadb": shadow}
    for name, text in secret.items():
        (directory / name).write_text(text)
    target = Target(
        addresses=("127.0.0.1:9",),
        control=str(directory / "control.json"),
        control_key=Secret(file=str(directory / "control_key")),
        collector="127.0.0.1:9",
        sample_ratio=1.0,
        stores=(
            Store(
                "orders",
                "mariadb",
                production,
                Secret(file=str(directory / "mariadb")),
            ),
        ),
    )
    return MariaSides(target, ControlPublisher(directory / "control.json", KEY.encode()), server, shop)


def _make_database(server: MariaServer, database: str, user: str) -> None:
    with server.connect() as session:
        cursor = session.cursor()
        cursor.execute(f"CREATE DATABASE {database}")
        cursor.execute(f"CREATE USER IF NOT EXISTS {user}@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'")
        escaped = database.replace("_", "\\_")
        cursor.execute(f"GRANT ALL ON `{escaped}`.* TO {user}@'127.0.0.1'")
        session.select_db(database)
        for statement in SCHEMA.split(";\n"):
            if statement.strip():
                cursor.execute(statement)


@pytest.fixture(scope="session")
def maria(mariadb: MariaServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaSides]:
    """Make both sides on one server, and publish a list of live runs."""
    sides = make_sides(mariadb, tmp_path_factory.mktemp("maria"), mariadb)
    with sides.publisher:
        yield sides


@pytest.fixture(scope="session")
def maria_service(maria: MariaSides) -> Iterator[Service]:
    """Start a process with the agent in it; hooks stay for the whole session."""
    with Service(attached_environment(maria.target, "shop")) as started:
        yield started


@pytest.fixture(scope="session")
def maria_plain() -> Iterator[Service]:
    """Start the same process without the agent."""
    with Service(dict(os.environ)) as started:
        yield started


@pytest.fixture
def maria_run(maria: MariaSides) -> Iterator[TestRun]:
    """Make a run live for one test; the tables of both sides are empty when it begins."""
    maria.empty()
    made = maria.begin_run()
    yield made
    made.remove()
