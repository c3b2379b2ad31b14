"""Stock: what is there, and reserving it for an order."""

from __future__ import annotations

import logging
from typing import Any

from flask import Flask, Response, jsonify, request
from sqlalchemy import Connection, create_engine, text
from werkzeug.exceptions import HTTPException

from .settings import required

app = Flask(__name__)
log = logging.getLogger(__name__)
engine = create_engine(
    required("SHOP_DATABASE_URL").replace("postgresql://", "postgresql+psycopg://", 1),
    pool_size=8,
    max_overflow=0,
)

AVAILABLE = text("""
    SELECT product_id, sum(quantity) AS promised FROM stock_movement
    WHERE product_id = ANY(:products) AND moved_at > now() - interval '30 days'
    GROUP BY product_id
""")
LEVEL = text("SELECT level FROM stock WHERE product_id = :product")
LEVELS = text("SELECT product_id, level FROM stock WHERE product_id = ANY(:products)")
TAKE = text("UPDATE stock SET level = level - :quantity WHERE product_id = :product")
MOVE = text(
    "INSERT INTO stock_movement (product_id, quantity, reference) VALUES (:product, :quantity, :reference)"
)


@app.get("/health")
def health() -> Response:
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    return jsonify(status="ok")


@app.get("/stock/<int:product_id>")
def level(product_id: int) -> tuple[Response, int]:
    with engine.connect() as connection:
        found = connection.execute(LEVEL, {"product": product_id}).scalar()
    if found is None:
        return jsonify(error=f"there is no product {product_id}"), 404
    return jsonify(product_id=product_id, level=found), 200


@app.get("/stock/<int:product_id>/availability")
def availability(product_id: int) -> tuple[Response, int]:
    with engine.connect() as connection:
        available = available_quantities(connection, [product_id])
    if product_id not in available:
        return jsonify(error=f"there is no product {product_id}"), 404
    return jsonify(product_id=product_id, available=available[product_id]), 200


@app.post("/reservations")
def reserve() -> tuple[Response, int]:
    order: dict[str, Any] = request.get_json()
    reference = str(order.get("reference", ""))
    # always in the same order, so that two reservations never wait for each other in a circle
    lines = sorted(order["lines"], key=lambda line: int(line["product_id"]))
    wanted = [(int(line["product_id"]), int(line["quantity"])) for line in lines]
    with engine.begin() as connection:
        available = available_quantities(connection, [product for product, _ in wanted])
        for product, quantity in wanted:
            if available.get(product, 0) < quantity:
                return jsonify(error=f"not enough of product {product}"), 409
        for product, quantity in wanted:
            connection.execute(TAKE, {"product": product, "quantity": quantity})
            moved = {"product": product, "quantity": quantity, "reference": reference}
            connection.execute(MOVE, moved)
    return jsonify(reserved=len(wanted)), 201


def available_quantities(connection: Connection, products: list[int]) -> dict[int, int]:
    """Return what can be sold of each product: the level less what was promised in the last thirty days."""
    promised = {row.product_id: row.promised for row in connection.execute(AVAILABLE, {"products": products})}
    levels = connection.execute(LEVELS, {"products": products})
    return {row.product_id: row.level - promised.get(row.product_id, 0) for row in levels}


@app.errorhandler(Exception)
def failed(error: Exception) -> tuple[Response, int]:
    if isinstance(error, HTTPException):
        return jsonify(error=error.description), error.code or 500
    log.error("%s %s failed", request.method, request.path, exc_info=error)
    return jsonify(error=f"{type(error).__name__}: {error}", service="stock"), 500
