"""Fulfilment: take placed orders from the queue and ship them (``python -m perflab.demo.shop.worker``)."""

from __future__ import annotations

import json
import logging
import signal
import threading
from typing import Any

import psycopg
import redis
from psycopg_pool import ConnectionPool

from .settings import required

QUEUE = "fulfilment"
FAILED = "fulfilment:failed"

log = logging.getLogger(__name__)


def ship(database: ConnectionPool[psycopg.Connection], job: dict[str, Any]) -> None:
    with database.connection() as connection:
        connection.execute(
            "INSERT INTO shipment (order_id, note) VALUES (%s, %s)", [job["order_id"], job["note"]]
        )
        connection.execute("UPDATE orders SET status = 'shipped' WHERE order_id = %s", [job["order_id"]])


def main() -> None:
    logging.basicConfig(level=logging.WARNING)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    queue = redis.Redis.from_url(required("SHOP_REDIS_URL"), decode_responses=True)
    with ConnectionPool(required("SHOP_DATABASE_URL"), min_size=1, max_size=2) as database:
        while not stopping.is_set():
            taken: Any = queue.blpop([QUEUE], timeout=1)
            if taken is None:
                continue
            text = taken[1]
            try:
                ship(database, json.loads(text))
            except Exception:
                log.exception("job %s failed and was put aside in %s", text, FAILED)
                queue.rpush(FAILED, text)


if __name__ == "__main__":
    main()
