"""Real servers for the tests of the shadow room, one of each per session."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from attached_service import Service, forget
from audited_system import PREFIX, TABLES, Application, System
from maria_sides import maria, maria_plain, maria_run, maria_service  # noqa: F401 - fixtures
from mariadb_server import MariaServer, find_mariadbd
from prepared_server import PASSWORD, server_with_a_shop
from tables_apart import Apart, tables_apart
from two_sides import Sides, TestRun, two_sides

from perflab.cli.attach import attached_environment
from perflab.config import Secret, Store
from perflab.demo.scratch import scratch_directory
from perflab.demo.stores import PostgresServer, RedisServer
from perflab.shadow.prepare import drop_postgresql, drop_redis, prepare_postgresql, prepare_redis

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def server_directory() -> Iterator[Path]:
    """Make a directory another user can pass through: PostgreSQL does not run as root."""
    with scratch_directory() as directory:
        yield directory.path


@pytest.fixture(scope="session")
def postgres(server_directory: Path) -> Iterator[PostgresServer]:
    """Start a PostgreSQL with logical decoding."""
    with PostgresServer(server_directory / "postgres") as server:
        yield server


@pytest.fixture(scope="session")
def redis_server(server_directory: Path) -> Iterator[RedisServer]:
    """Start a Redis with the superuser ``admin``."""
    with RedisServer(server_directory / "redis") as server:
        yield server


@pytest.fixture(scope="session")
def mariadb(server_directory: Path, needs: Callable[[object, str], None]) -> Iterator[MariaServer]:
    """Start a MariaDB with a row-based binlog."""
    needs(find_mariadbd(), "mariadbd (the system's package mariadb-server)")
    with MariaServer(server_directory / "mariadb") as server:
        yield server


@pytest.fixture
def make_database(postgres: PostgresServer) -> Callable[[str], str]:
    """``make_database(statements)`` makes a fresh database and returns the superuser's URL of it."""

    def make(statements: str) -> str:
        name = f"shop{next(_numbers)}"
        with psycopg.connect(postgres.admin_dsn, autocommit=True) as session:
            session.execute(f"CREATE DATABASE {name}")
        url = postgres.admin_dsn.rpartition("/")[0] + f"/{name}"
        with psycopg.connect(url) as session:
            session.execute(statements)
        return url

    return make


@pytest.fixture
def secret(tmp_path: Path) -> Callable[[str], Secret]:
    """``secret(text)`` writes a secret to a file and returns the reference to it."""

    def write(text: str) -> Secret:
        path = tmp_path / f"secret{next(_numbers)}"
        path.write_text(text)
        return Secret(file=str(path))

    return write


@pytest.fixture
def system(
    make_database: Callable[[str], str],
    secret: Callable[[str], Secret],
    postgres: PostgresServer,
    redis_server: RedisServer,
) -> Iterator[System]:
    """Prepare a database, a Redis, and the shadows of both."""
    url = make_database(TABLES)
    name = url.rpartition("/")[2]
    shadow, password = f"{name}_shadow", secrets.token_urlsafe(9)
    prepare_postgresql(postgres.admin_dsn, name, shadow, shadow, password)
    prepare_redis(redis_server.admin_url, "audited", password, PREFIX)
    shadow_url, shadow_redis_url = (
        postgres.dsn(shadow, shadow, password),
        redis_server.url("audited", password),
    )
    stores = (
        Store(
            "shop",
            "postgresql",
            f"postgresql://{postgres.host}:{postgres.port}/{name}",
            secret(shadow_url),
            secret(url),
        ),
        Store(
            "cache",
            "redis",
            f"redis://{redis_server.host}:{redis_server.port}/0",
            secret(shadow_redis_url),
            secret(redis_server.admin_url),
            PREFIX,
        ),
    )
    yield System(stores, Application(url, redis_server.admin_url), shadow_url, shadow_redis_url)
    drop_postgresql(postgres.admin_dsn, shadow, shadow)
    drop_redis(redis_server.admin_url, "audited", PREFIX)


@pytest.fixture(scope="session")
def preparing(server_directory: Path) -> Iterator[PostgresServer]:
    """Start a server of its own to prepare shadows on, since databases are closed to PUBLIC there."""
    with server_with_a_shop(server_directory / "preparing") as server:
        yield server


@pytest.fixture
def prepared(preparing: PostgresServer) -> Iterator[PostgresServer]:
    """Prepare a shadow of ``shop``."""
    prepare_postgresql(preparing.admin_dsn, "shop", "shop_shadow", "shop_shadow", PASSWORD, 5)
    yield preparing
    drop_postgresql(preparing.admin_dsn, "shop_shadow", "shop_shadow")


@pytest.fixture(scope="session")
def sides(
    postgres: PostgresServer, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sides]:
    """Make a production and a shadow side on both servers, and publish a list of live runs."""
    with two_sides(postgres, redis_server, tmp_path_factory.mktemp("sides")) as made:
        yield made


@pytest.fixture(scope="session")
def attached(sides: Sides) -> Iterator[Service]:
    """Start a process with the agent in it; hooks stay for the whole session."""
    with Service(attached_environment(sides.target, "shop")) as started:
        yield started


@pytest.fixture
def service(attached: Service) -> Service:
    """Return that process; of what tests before noted, it knows nothing."""
    attached.call(forget)
    return attached


@pytest.fixture(scope="session")
def plain(sides: Sides) -> Iterator[Service]:
    """Start the same process without the agent."""
    with Service(sides.plain_environment) as started:
        yield started


@pytest.fixture(scope="session")
def consumer(sides: Sides) -> Iterator[Service]:
    """Start a shadow consumer."""
    with Service(attached_environment(sides.target, "worker", shadow_consumer=True)) as started:
        yield started


@pytest.fixture
def run(sides: Sides) -> Iterator[TestRun]:
    """Make a run live for one test; the tables and keys of both sides are empty when it begins."""
    sides.empty()
    made = sides.begin_run()
    yield made
    made.remove()


@pytest.fixture(params=[("schema", "shadow"), ("table", "shadow_")], ids=["schema", "table"])
def apart(
    request: pytest.FixtureRequest,
    make_database: Callable[[str], str],
    secret: Callable[[str], Secret],
    sides: Sides,
) -> Iterator[Apart]:
    """Make a database with shadow tables of its own, in both modes, and a service that works there."""
    with tables_apart(*request.param, make_database, secret, sides) as made:
        yield made
