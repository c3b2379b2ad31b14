"""Orders: reserve the stock, write order and lines in one transaction, hand over to fulfilment."""

from __future__ import annotations

import json
import logging
from typing import Any

import redis
import requests
from flask import Flask, Response, jsonify, request
from requests.adapters import HTTPAdapter
from sqlalchemy import ForeignKey, create_engine, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship
from werkzeug.exceptions import HTTPException

from .settings import required

app = Flask(__name__)
log = logging.getLogger(__name__)
engine = create_engine(
    required("SHOP_DATABASE_URL").replace("postgresql://", "postgresql+psycopg://", 1),
    pool_size=8,
    max_overflow=0,
)
queue = redis.Redis.from_url(required("SHOP_REDIS_URL"), decode_responses=True)
stock_url = required("SHOP_STOCK_URL")
http = requests.Session()
http.mount("http://", HTTPAdapter(pool_connections=4, pool_maxsize=16))

PRICES = text("SELECT product_id, price_cents FROM product WHERE product_id = ANY(:products)")


class Table(DeclarativeBase):
    pass


class Order(Table):
    __tablename__ = "orders"

    order_id: Mapped[int] = mapped_column(primary_key=True)
    user_name: Mapped[str]
    status: Mapped[str]
    total_cents: Mapped[int]
    note: Mapped[str]
    lines: Mapped[list[OrderLine]] = relationship(order_by="OrderLine.line")


class OrderLine(Table):
    __tablename__ = "order_line"

    order_id: Mapped[int] = mapped_column(ForeignKey("orders.order_id"), primary_key=True)
    line: Mapped[int] = mapped_column(primary_key=True)
    product_id: Mapped[int]
    quantity: Mapped[int]
    price_cents: Mapped[int]


@app.get("/health")
def health() -> Response:
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    return jsonify(status="ok")


@app.post("/orders")
def place() -> tuple[Response, int]:
    wanted: dict[str, Any] = request.get_json()
    lines, note = wanted["lines"], str(wanted.get("note", ""))
    reservation = http.post(f"{stock_url}/reservations", json={"lines": lines, "reference": note}, timeout=10)
    if reservation.status_code == 409:
        return jsonify(reservation.json()), 409
    reservation.raise_for_status()

    with Session(engine) as session, session.begin():
        products = [int(line["product_id"]) for line in lines]
        prices = {row.product_id: row.price_cents for row in session.execute(PRICES, {"products": products})}
        order = Order(user_name=str(wanted["user"]), status="placed", note=note, total_cents=0)
        for number, line in enumerate(lines, start=1):
            product, quantity = int(line["product_id"]), int(line["quantity"])
            order.total_cents += prices[product] * quantity
            order.lines.append(
                OrderLine(line=number, product_id=product, quantity=quantity, price_cents=prices[product])
            )
        session.add(order)
        session.flush()
        placed = {"order_id": order.order_id, "status": order.status, "total_cents": order.total_cents}

    queue.rpush("fulfilment", json.dumps({"order_id": placed["order_id"], "note": note}))
    return jsonify(placed), 201


@app.get("/orders/<int:order_id>")
def show(order_id: int) -> tuple[Response, int]:
    with Session(engine) as session:
        order = session.scalar(select(Order).where(Order.order_id == order_id))
        if order is None:
            return jsonify(error=f"there is no order {order_id}"), 404
        lines = [{"product_id": line.product_id, "quantity": line.quantity} for line in order.lines]
        return jsonify(
            order_id=order_id, status=order.status, total_cents=order.total_cents, lines=lines
        ), 200


@app.errorhandler(Exception)
def failed(error: Exception) -> tuple[Response, int]:
    if isinstance(error, HTTPException):
        return jsonify(error=error.description), error.code or 500
    log.error("%s %s failed", request.method, request.path, exc_info=error)
    return jsonify(error=f"{type(error).__name__}: {error}", service="order"), 500
