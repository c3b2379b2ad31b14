"""Carts: a Redis hash for each user, forgotten after a day."""

from __future__ import annotations

import json
import logging
from typing import Any

import redis
from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException

from .settings import required

app = Flask(__name__)
log = logging.getLogger(__name__)
carts = redis.Redis.from_url(required("SHOP_REDIS_URL"), decode_responses=True)

KEPT_S = 24 * 3600


@app.get("/health")
def health() -> Response:
    return jsonify(status="ok")


@app.post("/carts/<user>/items")
def add(user: str) -> tuple[Response, int]:
    item: dict[str, Any] = request.get_json()
    product, quantity = int(item["product_id"]), int(item.get("quantity", 1))
    entry = json.dumps({"quantity": quantity, "note": str(item.get("note", ""))})
    carts.hset(f"cart:{user}", str(product), entry)
    carts.expire(f"cart:{user}", KEPT_S)
    return jsonify(user=user, product_id=product, quantity=quantity), 201


@app.get("/carts/<user>")
def show(user: str) -> Response:
    entries: dict[str, str] = carts.hgetall(f"cart:{user}")  # type: ignore[assignment]  # never a coroutine here
    items = [{"product_id": int(product), **json.loads(entry)} for product, entry in sorted(entries.items())]
    return jsonify(user=user, items=items)


@app.errorhandler(Exception)
def failed(error: Exception) -> tuple[Response, int]:
    if isinstance(error, HTTPException):
        return jsonify(error=error.description), error.code or 500
    log.error("%s %s failed", request.method, request.path, exc_info=error)
    return jsonify(error=f"{type(error).__name__}: {error}", service="cart"), 500
