"""Look whether everything the shop acknowledged to its customers is really there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import redis


@dataclass(frozen=True)
class MissingWrite:
    """A write that was acknowledged and is not there: what was asked, its id, its reference."""

    what: str
    id: int | str
    reference: str


def missing_writes(dsn: str, log_path: Path, redis_url: str | None = None) -> list[MissingWrite]:
    """List the acknowledged orders, payments and cart items that the shop's stores do not hold.

    Parameters
    ----------
    dsn
        A login of the shop's database.
    log_path
        The log of `perflab.demo.realusers`. A last line cut short by a kill is passed over.
    redis_url
        A login of the shop's Redis; cart items are checked when it is given.

    Raises
    ------
    ValueError
        A line of the log is not one of ours.
    """
    written = [entry for entry in read_log(log_path) if entry["id"] is not None]
    with psycopg.connect(dsn) as connection:
        orders: dict[int, str] = dict(connection.execute("SELECT order_id, note FROM orders").fetchall())
        paid = connection.execute("SELECT payment_id, reference FROM payment")
        payments: dict[int, str] = dict(paid.fetchall())
    missing = []
    for entry in written:
        held = {"POST /orders": orders, "POST /payments": payments}.get(entry["what"])
        if held is not None and held.get(entry["id"]) != entry["reference"]:
            missing.append(MissingWrite(entry["what"], entry["id"], entry["reference"]))
    if redis_url is not None:
        missing += _missing_cart_items(redis_url, written)
    return missing


def read_log(log_path: Path) -> Iterator[dict[str, Any]]:
    """Read the finished requests from the customers' log, one dict each."""
    with log_path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith("\n"):
                return
            try:
                entry = json.loads(line)
                assert {"time_ns", "what", "status", "seconds", "id", "reference"} <= entry.keys()
            except (ValueError, AttributeError, AssertionError) as error:
                raise ValueError(
                    f"{log_path}:{number} is not a line of the customers' log: {line[:80]!r}"
                ) from error
            yield entry


def _missing_cart_items(redis_url: str, written: list[dict[str, Any]]) -> Iterator[MissingWrite]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as carts:
        for entry in written:
            if entry["what"] != "POST /carts/{user}/items":
                continue
            user, _, product = str(entry["id"]).rpartition("/")
            item: Any = carts.hget(f"cart:{user}", product)
            if item is None or json.loads(item)["note"] != entry["reference"]:
                yield MissingWrite(entry["what"], entry["id"], entry["reference"])
