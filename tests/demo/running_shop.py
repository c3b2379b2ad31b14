"""What the tests know of the shop that runs for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from perflab.demo.processes import ServiceGroup


@dataclass(frozen=True)
class RunningShop:
    gateway: str
    bank: str
    dsn: str
    redis_url: str
    services: ServiceGroup
    directory: Path
