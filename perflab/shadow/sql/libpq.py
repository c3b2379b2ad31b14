"""Where a libpq connection string leads, and the same string led to the shadow instead.

For the drivers that stand on libpq: psycopg 3 and psycopg 2. What the string leaves out comes from libpq's
environment variables, a service file, or a default; a rewritten one leaves nothing of the login to them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from perflab.shadow.stores import Place, Twin

LOGIN = ("host", "hostaddr", "port", "dbname", "user", "password", "service", "passfile")
"""The parameters that say where and who; all others stay as the service gave them."""


def places(given: Mapping[str, Any]) -> list[Place]:
    """Return every place a connection may lead to: libpq takes several hosts.

    Parameters
    ----------
    given : mapping
        Parameters of the connection string, keyword arguments included.

    Raises
    ------
    ValueError
        If ports are no numbers, or as many as neither one nor the hosts.
    """
    user = str(given.get("user") or os.environ.get("PGUSER", ""))
    database = str(given.get("dbname") or os.environ.get("PGDATABASE", "") or user)
    addresses = given.get("hostaddr") or os.environ.get("PGHOSTADDR", "")
    hosts = str(addresses or given.get("host") or os.environ.get("PGHOST", "")).split(",")
    ports = str(given.get("port") or os.environ.get("PGPORT", "") or 5432).split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    return [
        Place(host.strip(), int(port or 5432), database, user)
        for host, port in zip(hosts, ports, strict=True)
    ]


def shadow_login(twin: Twin) -> dict[str, str]:
    """Return the parameters that reach the shadow of a store, to replace all of `LOGIN`."""
    there = twin.shadow
    return {
        "host": there.host,
        "hostaddr": "",  # so that no PGHOSTADDR or service file leads elsewhere
        "port": str(there.port),
        "dbname": there.database,
        "user": there.user,
        "password": there.password,
    }
