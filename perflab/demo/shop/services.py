"""Which services the shop has, and the ordinary command that starts each."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Service:
    """One service: how it is served, and the settings it reads.

    Attributes
    ----------
    server
        ``uvicorn``, ``waitress``, or ``module`` for a process without a port.
    needs
        Environment variables it cannot start without.
    may_have
        Environment variables it reads when they are there.
    """

    name: str
    server: Literal["uvicorn", "waitress", "module"]
    needs: tuple[str, ...] = ()
    may_have: tuple[str, ...] = ()
    health_path: str | None = "/health"

    def argv(self, port: int | None) -> list[str]:
        """Write the command that starts the service on a port."""
        module = f"{__package__}.{self.name}"
        if self.server == "module":
            return [sys.executable, "-m", module]
        if self.server == "waitress":
            return [
                sys.executable,
                "-m",
                "waitress",
                f"--listen=127.0.0.1:{port}",
                "--threads=8",
                f"{module}:app",
            ]
        command = [
            sys.executable,
            "-m",
            "uvicorn",
            f"{module}:app",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
        ]
        return [*command, "--workers", "1", "--log-level", "warning", "--no-access-log"]


@dataclass(frozen=True)
class ServicePlan:
    """A service ready to start: command, environment, port and health address (both None for the worker)."""

    name: str
    argv: list[str]
    env: dict[str, str]
    port: int | None
    health_url: str | None


SERVICES: tuple[Service, ...] = (
    Service("bank", "uvicorn", may_have=("SHOP_BANK_LATENCY_MS",)),
    Service("catalogue", "uvicorn", needs=("SHOP_DATABASE_URL", "SHOP_REDIS_URL")),
    Service("cart", "waitress", needs=("SHOP_REDIS_URL",)),
    Service("stock", "waitress", needs=("SHOP_DATABASE_URL",)),
    Service("order", "waitress", needs=("SHOP_DATABASE_URL", "SHOP_REDIS_URL", "SHOP_STOCK_URL")),
    Service("payment", "uvicorn", needs=("SHOP_DATABASE_URL", "SHOP_BANK_URL")),
    Service("worker", "module", needs=("SHOP_DATABASE_URL", "SHOP_REDIS_URL"), health_path=None),
    Service(
        "gateway",
        "uvicorn",
        needs=(
            "SHOP_CATALOGUE_URL",
            "SHOP_CART_URL",
            "SHOP_ORDER_URL",
            "SHOP_STOCK_URL",
            "SHOP_PAYMENT_URL",
        ),
        may_have=("SHOP_GATEWAY_LIMIT",),
    ),
)


def plan(
    ports: Mapping[str, int],
    database_url: str,
    redis_url: str,
    bank_url: str | None = None,
    extra: Mapping[str, str] | None = None,
) -> list[ServicePlan]:
    """Give every service its command and settings.

    Parameters
    ----------
    ports
        A port for each service that listens (all but the worker).
    database_url, redis_url
        The logins of the services.
    bank_url
        A bank to use instead of the stand-in; the stand-in is planned all the same.
    extra
        Further settings (``SHOP_GATEWAY_LIMIT``, ``SHOP_BANK_LATENCY_MS``), given to the services
        that read them.

    Raises
    ------
    ValueError
        A service has no port, or no service reads a setting in `extra`.
    """
    listening = [service for service in SERVICES if service.health_path is not None]
    if missing := [service.name for service in listening if service.name not in ports]:
        raise ValueError(
            f"no port for {', '.join(missing)}; ports were given for {', '.join(ports) or 'none'}"
        )
    extra = extra or {}
    readable = {name for service in SERVICES for name in (*service.needs, *service.may_have)}
    if strangers := sorted(set(extra) - readable):
        raise ValueError(f"no service reads {', '.join(strangers)}; there are {', '.join(sorted(readable))}")
    settings = {"SHOP_DATABASE_URL": database_url, "SHOP_REDIS_URL": redis_url}
    for service in listening:
        settings[f"SHOP_{service.name.upper()}_URL"] = f"http://127.0.0.1:{ports[service.name]}"
    if bank_url is not None:
        settings["SHOP_BANK_URL"] = bank_url
    settings.update(extra)
    plans = []
    for service in SERVICES:
        port = ports[service.name] if service.health_path is not None else None
        env = {name: settings[name] for name in (*service.needs, *service.may_have) if name in settings}
        health = None if port is None else f"http://127.0.0.1:{port}{service.health_path}"
        plans.append(ServicePlan(service.name, service.argv(port), env, port, health))
    return plans
