"""A PostgreSQL with the setting most servers have: its changes cannot be decoded."""

from __future__ import annotations

from typing import ClassVar

from perflab.demo.stores import PostgresServer


class ReplicaLevelServer(PostgresServer):
    """One with the wal_level most servers have."""

    _settings: ClassVar[dict[str, str]] = {**PostgresServer._settings, "wal_level": "replica"}
