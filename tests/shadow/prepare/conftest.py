"""A server whose shadow is dropped again after each test that made one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from live_production import people

from perflab.demo.stores import PostgresServer
from perflab.shadow.prepare import drop_postgresql


@pytest.fixture
def live(preparing: PostgresServer) -> Iterator[PostgresServer]:
    """Have people in production, and no shadow before and after."""
    with people(preparing):
        yield preparing
    drop_postgresql(preparing.admin_dsn, "shop_shadow", "shop_shadow")
