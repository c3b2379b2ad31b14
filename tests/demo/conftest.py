"""Private stores and a whole shop, started once for the tests of this folder, without perflab around it."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from running_shop import RunningShop

from perflab.demo.processes import ServiceGroup, ServiceProcess
from perflab.demo.scratch import ScratchDirectory, scratch_directory
from perflab.demo.shop.database import create_database, create_redis_login, set_up
from perflab.demo.shop.services import SERVICES, plan
from perflab.demo.spawn import free_port
from perflab.demo.stores import PostgresServer, RedisServer


@pytest.fixture
def scratch() -> Iterator[ScratchDirectory]:
    with scratch_directory() as directory:
        yield directory


@pytest.fixture(scope="session")
def stores() -> Iterator[tuple[PostgresServer, RedisServer]]:
    with (
        scratch_directory() as directory,
        PostgresServer(directory.path / "pg") as postgres,
        RedisServer(directory.path / "redis") as redis,
    ):
        yield postgres, redis


@pytest.fixture(scope="session")
def shop(stores: tuple[PostgresServer, RedisServer]) -> Iterator[RunningShop]:
    postgres, redis = stores
    dsn = create_database(postgres.admin_dsn)
    set_up(dsn)
    redis_url = create_redis_login(redis.admin_url)
    ports = {service.name: free_port() for service in SERVICES if service.health_path}
    directory = postgres.directory.parent
    services = [
        ServiceProcess(one.name, one.argv, one.env, directory / f"{one.name}.log", one.health_url)
        for one in plan(ports, dsn, redis_url)
    ]
    with ServiceGroup(services, directory) as group:
        gateway, bank = (f"http://127.0.0.1:{ports[name]}" for name in ("gateway", "bank"))
        yield RunningShop(gateway, bank, dsn, redis_url, group, directory)


@pytest.fixture
def customer(shop: RunningShop) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=shop.gateway, timeout=15) as client:
        yield client
