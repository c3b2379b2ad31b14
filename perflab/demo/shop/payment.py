"""Payments: charge the customer's bank, then write the payment down."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from psycopg_pool import ConnectionPool
from pydantic import BaseModel

from .settings import required

log = logging.getLogger(__name__)
database = ConnectionPool(required("SHOP_DATABASE_URL"), min_size=4, max_size=8, open=False)
bank = httpx.Client(base_url=required("SHOP_BANK_URL"), timeout=10, limits=httpx.Limits(max_connections=16))


class Payment(BaseModel):
    order_id: int
    amount_cents: int | None = None
    reference: str = ""


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    database.open(wait=True)
    yield
    database.close()


app = FastAPI(lifespan=lifespan)


@app.get("/health")
def health() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/payments", status_code=201)
def pay(payment: Payment) -> dict[str, Any]:
    with database.connection() as connection:
        order = connection.execute(
            "SELECT total_cents FROM orders WHERE order_id = %s", [payment.order_id]
        ).fetchone()
    if order is None:
        raise HTTPException(404, f"there is no order {payment.order_id}")
    amount = order[0] if payment.amount_cents is None else payment.amount_cents

    charge = bank.post("/charge", json={"amount_cents": amount, "reference": payment.reference})
    charge.raise_for_status()

    with database.connection() as connection:
        row = connection.execute(
            "INSERT INTO payment (order_id, amount_cents, reference, bank_reference) "
            "VALUES (%s, %s, %s, %s) RETURNING payment_id",
            [payment.order_id, amount, payment.reference, charge.json()["bank_reference"]],
        ).fetchone()
    assert row is not None
    return {"payment_id": row[0], "order_id": payment.order_id, "amount_cents": amount}


@app.exception_handler(Exception)
def failed(request: Request, error: Exception) -> JSONResponse:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return JSONResponse({"error": f"{type(error).__name__}: {error}", "service": "payment"}, 500)
