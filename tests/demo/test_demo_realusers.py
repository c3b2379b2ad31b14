"""The shop's customers: a steady pace, a line for each request, and a check that nothing promised is gone."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import redis
from running_shop import RunningShop

from perflab.demo.check import MissingWrite, missing_writes, read_log
from perflab.demo.spawn import wait_until


def customers(gateway: str, log: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "perflab.demo.realusers", "--gateway", gateway, "--log", str(log), *more]


def lines(log: Path) -> int:
    return log.read_bytes().count(b"\n") if log.exists() else 0


def test_customers_visit_until_told_to_stop(shop: RunningShop, tmp_path: Path) -> None:
    """Customers log each request at once, stop cleanly on SIGTERM, and all they were promised is there."""
    # Given
    log = tmp_path / "customers.jsonl"
    visit = subprocess.Popen(customers(shop.gateway, log, "--rate", "15"))

    # When
    try:
        assert wait_until(lambda: lines(log) >= 60, 30)
    finally:
        visit.send_signal(signal.SIGTERM)
        status = visit.wait(10)

    # Then
    entries = list(read_log(log))
    assert status == 0
    assert {entry["status"] for entry in entries} <= {200, 201}
    whats = {entry["what"] for entry in entries}
    assert {
        "GET /products/{product_id}",
        "POST /orders",
        "POST /payments",
        "POST /carts/{user}/items",
    } <= whats
    assert all(entry["seconds"] > 0 for entry in entries)
    assert missing_writes(shop.dsn, log, shop.redis_url) == []


def test_what_was_promised_and_is_gone_is_found(shop: RunningShop, tmp_path: Path) -> None:
    """A deleted payment, an order with somebody else's note and a lost cart item are each found."""
    # Given
    log = tmp_path / "customers.jsonl"
    subprocess.run(customers(shop.gateway, log, "--rate", "15", "--for", "4"), check=True, timeout=30)
    kinds = ("POST /payments", "POST /orders", "POST /carts/{user}/items")
    written = {kind: [entry for entry in read_log(log) if entry["what"] == kind] for kind in kinds}
    payment, order, item = (written[kind][-1] for kind in kinds)

    # When
    with psycopg.connect(shop.dsn) as connection:
        connection.execute("DELETE FROM payment WHERE payment_id = %s", [payment["id"]])
        connection.execute("UPDATE orders SET note = 'another' WHERE order_id = %s", [order["id"]])
    with redis.Redis.from_url(shop.redis_url) as store:
        store.delete(f"cart:{item['reference']}")
    missing = missing_writes(shop.dsn, log, shop.redis_url)

    # Then
    expected = {MissingWrite(one["what"], one["id"], one["reference"]) for one in (payment, order, item)}
    assert set(missing) == expected
    assert len(missing) == 3


def test_a_shop_that_does_not_answer_is_logged(tmp_path: Path) -> None:
    """Requests that fail are lines too, with status 0 and the reason, and the customers go on."""
    # Given
    log = tmp_path / "customers.jsonl"

    # When
    subprocess.run(
        customers("http://127.0.0.1:1", log, "--rate", "50", "--for", "0.2"), check=True, timeout=30
    )

    # Then
    entries = list(read_log(log))
    assert len(entries) == 10
    assert {entry["status"] for entry in entries} == {0}
    assert all(entry["error"].startswith("ConnectError") for entry in entries)
    assert all(entry["id"] is None for entry in entries)


def test_a_log_cut_short_is_read_and_a_foreign_one_refused(tmp_path: Path) -> None:
    """The half line a kill leaves at the end is passed over; a line of something else is named."""
    # Given
    line = {
        "time_ns": 1,
        "what": "GET /products",
        "status": 200,
        "seconds": 0.1,
        "id": None,
        "reference": "x",
    }
    cut, foreign = tmp_path / "cut.jsonl", tmp_path / "foreign.jsonl"
    cut.write_text(json.dumps(line) + "\n" + json.dumps(line)[:20])
    foreign.write_text(json.dumps(line) + "\n[1, 2]\n")

    # When
    read = list(read_log(cut))

    # Then
    assert read == [line]
    with pytest.raises(ValueError, match=r"foreign\.jsonl:2 is not a line of the customers' log"):
        list(read_log(foreign))
