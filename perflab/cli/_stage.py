"""The demo's stage: private servers, the shop with the agent in each service, real users.

Everything a company would have in production is started here, on free ports of 127.0.0.1 and in one
scratch directory; leaving the stage ends it all. The shop knows nothing of perflab: this is where its
ordinary commands are put behind ``perflab attach``.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from shlex import split
from typing import Any

import psycopg
import redis
from psycopg.conninfo import make_conninfo

from perflab.cli._progress import uninterrupted
from perflab.demo.check import missing_writes, read_log
from perflab.demo.processes import ServiceError, ServiceGroup, ServiceProcess
from perflab.demo.scratch import scratch_directory
from perflab.demo.shop import database
from perflab.demo.shop.services import SERVICES, ServicePlan, plan
from perflab.demo.spawn import free_port
from perflab.demo.stores import PostgresServer, RedisServer, StoreError
from perflab.errors import ConfigError, PerflabError
from perflab.shadow.prepare import prepare_postgresql
from perflab.shadow.prepare.redisaccess import prepare_redis
from perflab.units import NS_PER_MS

PREFIX = "perflab:shadow:"
_OUTSIDE = "bank"
_ATTACH = (sys.executable, "-m", "perflab", "attach")


@dataclass(frozen=True)
class Wishes:
    """How the stage differs from the ordinary one.

    Parameters
    ----------
    mended : bool
        Whether the shop's natural hotspot is mended.
    settings : mapping
        Further settings of the shop, e.g. ``SHOP_GATEWAY_LIMIT``.
    commands : mapping
        Service -> a command to run in place of its own; ``{port}`` in it is the service's port.
    disabled : sequence of (service, hook)
        Hooks the agent leaves out.
    users_per_s : float
        Rate of the real users' requests.
    """

    mended: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)
    commands: Mapping[str, str] = field(default_factory=dict)
    disabled: Sequence[tuple[str, str]] = ()
    users_per_s: float = 6.0

    def check(self) -> None:
        """Refuse names that do not exist.

        Raises
        ------
        ConfigError
            If a service is not one of the shop's.
        """
        names = [service.name for service in SERVICES]
        asked = [*self.commands, *(service for service, _ in self.disabled)]
        unknown = [name for name in asked if name not in names]
        if unknown:
            raise ConfigError(f"the shop has no service {unknown[0]!r}; there are: {', '.join(names)}")


class Stage:
    """The running demo.

    Parameters
    ----------
    logs : Path
        Where the services' output goes.
    wishes : Wishes
        How it differs from the ordinary one.

    Attributes
    ----------
    config : Path
        The ``perflab.toml`` that describes it, with the target ``shop``.
    """

    config: Path

    def __init__(self, logs: Path, wishes: Wishes) -> None:
        self._logs = logs
        self._wishes = wishes
        self._stack = ExitStack()
        self._shop: ServiceGroup | None = None
        self._customers: ServiceGroup | None = None

    def __enter__(self) -> Stage:
        try:
            self._start()
        except (StoreError, ServiceError, psycopg.Error, redis.RedisError) as error:
            self._end()
            raise PerflabError(f"the stage could not be set: {error}") from error
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._end()

    def died(self) -> list[str]:
        """Return the services that ended by themselves."""
        return [service.name for service in self._shop.dead()] if self._shop is not None else []

    def end_customers(self) -> None:
        """Let the real users finish what they are doing and leave."""
        if self._customers is not None:
            self._customers.stop(grace_s=20)

    def real_user_writes(self) -> dict[str, Any]:
        """Return how many of the real users' writes were acknowledged, and which of them are missing.

        Raises
        ------
        PerflabError
            If a store does not answer any more.
        """
        written = sum(1 for entry in read_log(self._customers_log) if entry["id"] is not None)
        try:
            missing = missing_writes(self._database_url, self._customers_log, self._redis_url)
        except (psycopg.Error, redis.RedisError) as error:
            raise PerflabError(f"the shop's stores do not answer: {error}") from error
        found = [{"what": entry.what, "id": entry.id, "reference": entry.reference} for entry in missing]
        return {"acknowledged": written, "missing": len(found), "missing_writes": found}

    def live_hits(self, canary: str) -> int:
        """Return how many charges with a canary the real bank has seen.

        Raises
        ------
        PerflabError
            If the bank does not answer any more.
        """
        book = f"http://127.0.0.1:{self._ports[_OUTSIDE]}/charges"
        try:
            with urllib.request.urlopen(book, timeout=10) as answer:
                return sum(canary in reference for reference in json.load(answer)["references"])
        except (OSError, ValueError) as error:
            raise PerflabError(f"the bank does not answer: {error}") from error

    def _end(self) -> None:
        with uninterrupted():
            self._stack.close()

    def _start(self) -> None:
        self._wishes.check()
        self._scratch = self._stack.enter_context(scratch_directory()).path
        postgres = self._stack.enter_context(PostgresServer(self._scratch / "postgres"))
        cache = self._stack.enter_context(RedisServer(self._scratch / "redis"))
        self._database_url = database.create_database(postgres.admin_dsn)
        database.set_up(self._database_url, mended=self._wishes.mended)
        self._redis_url = database.create_redis_login(cache.admin_url)
        names = [service.name for service in SERVICES if service.health_path is not None]
        self._sandbox, self._collector, *ports = _free_ports(len(names) + 2)
        self._ports = dict(zip(names, ports, strict=True))
        self._write_config(postgres, cache)
        services = self._services()
        self._shop = self._stack.enter_context(ServiceGroup(services, self._scratch))
        self._customers_log = self._scratch / "customers.jsonl"
        self._customers_log.touch()
        gateway = f"http://127.0.0.1:{self._ports['gateway']}"
        argv = [sys.executable, "-m", "perflab.demo.realusers", "--gateway", gateway]
        argv += ["--rate", str(self._wishes.users_per_s), "--log", str(self._customers_log)]
        customers = ServiceProcess("customers", argv, {}, self._logs / "customers.log")
        self._customers = self._stack.enter_context(ServiceGroup([customers], self._scratch))

    def _write_config(self, postgres: PostgresServer, cache: RedisServer) -> None:
        """Prepare the shadows and write ``perflab.toml``, its secrets in files of their own."""
        password = secrets.token_urlsafe(18)
        prepare_postgresql(postgres.admin_dsn, "shop", "shop_shadow", "shop_shadow", password)
        prepare_redis(cache.admin_url, "shop_shadow", password, PREFIX)
        self._secret("control.key", secrets.token_hex(32))
        self._secret("postgres.shadow", postgres.dsn("shop_shadow", "shop_shadow", password))
        self._secret("postgres.audit", _of_database(postgres.admin_dsn, "shop"))
        self._secret("redis.shadow", cache.url("shop_shadow", password))
        self._secret("redis.audit", cache.admin_url)
        attached = "\n".join(
            f"{service.name} = [{self._address(service.name)}]"
            for service in SERVICES
            if service.name != _OUTSIDE
        )
        text = _TOML.format(
            entry=f"127.0.0.1:{self._ports['gateway']}",
            here=self._scratch,
            collector=f"127.0.0.1:{self._collector}",
            attached=attached,
            postgres=postgres.port,
            redis=cache.port,
            prefix=PREFIX,
            bank=f"127.0.0.1:{self._ports[_OUTSIDE]}",
            sandbox=f"127.0.0.1:{self._sandbox}",
        )
        self.config = self._scratch / "perflab.toml"
        self.config.write_text(text, encoding="utf-8")

    def _services(self) -> list[ServiceProcess]:
        settings = dict(self._wishes.settings)
        try:
            planned = plan(self._ports, self._database_url, self._redis_url, extra=settings)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        services = []
        for service in planned:
            services.append(self._service(service, service.name))
            if service.name == _OUTSIDE:  # what marked work is sent to instead
                command = self._command(service)
                sandbox = [str(self._sandbox) if word == str(service.port) else word for word in command]
                health = f"http://127.0.0.1:{self._sandbox}/health"
                log = self._logs / "bank-sandbox.log"
                services.append(ServiceProcess("bank-sandbox", sandbox, service.env, log, health))
            if service.port is None:  # the queue's consumer, once more for shadow messages
                services.append(self._service(service, f"{service.name}-shadow", "--shadow-consumer"))
        return services

    def _service(self, service: ServicePlan, name: str, *options: str) -> ServiceProcess:
        """Put a service's ordinary command behind ``perflab attach``; the bank is not ours to attach."""
        argv = self._command(service)
        if service.name != _OUTSIDE:
            disabled = [
                word
                for of, hook in self._wishes.disabled
                if of == service.name
                for word in ("--disable", hook)
            ]
            attach = [
                *_ATTACH,
                "--config",
                str(self.config),
                "--service",
                service.name,
                *options,
                *disabled,
                "--",
            ]
            argv = [*attach, *argv]
        return ServiceProcess(name, argv, service.env, self._logs / f"{name}.log", service.health_url)

    def _command(self, service: ServicePlan) -> list[str]:
        replaced = self._wishes.commands.get(service.name)
        return split(replaced.format(port=service.port)) if replaced else list(service.argv)

    def _address(self, name: str) -> str:
        return f'"127.0.0.1:{self._ports[name]}"' if name in self._ports else ""

    def _secret(self, name: str, text: str) -> None:
        path = self._scratch / name
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)


def read_delay(text: str) -> tuple[str, int]:
    """Read ``ENTITY=MS``.

    Raises
    ------
    ConfigError
        If it is not of that form.

    Examples
    --------
    >>> read_delay("order -> stock=150")
    ('order -> stock', 150000000)
    """
    entity, _, milliseconds = text.rpartition("=")
    try:
        delay_ns = round(float(milliseconds) * NS_PER_MS)
    except ValueError:
        delay_ns = 0
    if not entity.strip() or not 0 < delay_ns <= 60_000 * NS_PER_MS:
        raise ConfigError(
            f"--slow {text!r} is not ENTITY=MS; write it as 'stock: SELECT stock=150' or "
            "'order -> stock=150', with milliseconds above 0 and up to 60000"
        )
    return entity.strip(), delay_ns


def _free_ports(count: int) -> list[int]:
    """Return ports that are free, each another one."""
    ports: set[int] = set()
    while len(ports) < count:
        ports.add(free_port())
    return list(ports)


def _of_database(dsn: str, name: str) -> str:
    return make_conninfo(dsn, dbname=name)


_TOML = """\
[targets.shop]
addresses = ["{entry}"]
control = "{here}/control.json"
control_key = {{ file = "{here}/control.key" }}
collector = "{collector}"
max_rate_per_s = 500
max_in_flight = 256
max_duration = "10min"
timeout = "10s"
real_users = {{ service = "gateway" }}

[targets.shop.services]
{attached}

[[targets.shop.stores]]
name = "postgres"
kind = "postgresql"
production = "postgresql://127.0.0.1:{postgres}/shop"
shadow = {{ file = "{here}/postgres.shadow" }}
audit = {{ file = "{here}/postgres.audit" }}

[[targets.shop.stores]]
name = "redis"
kind = "redis"
production = "redis://127.0.0.1:{redis}/0"
shadow = {{ file = "{here}/redis.shadow" }}
audit = {{ file = "{here}/redis.audit" }}
prefix = "{prefix}"

[[targets.shop.outbound]]
name = "bank"
address = "{bank}"
action = "stub"
to = "{sandbox}"

[[targets.shop.guards]]
of = "real_users"
metric = "p99_ms"
factor = 3.0
slack = 250.0
windows = 3

[[targets.shop.guards]]
of = "real_users"
metric = "error_ratio"
below = 0.05

[[targets.shop.guards]]
of = "shadow"
metric = "error_ratio"
below = 0.5
windows = 3
"""
