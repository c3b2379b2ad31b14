"""Catalogue: products from PostgreSQL, single products behind a cache in Redis."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import redis
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from psycopg import Connection
from psycopg.rows import DictRow, dict_row
from psycopg_pool import ConnectionPool

from .settings import required

KEPT_S = 60

log = logging.getLogger(__name__)
cache = redis.Redis.from_url(required("SHOP_REDIS_URL"), decode_responses=True)
database: ConnectionPool[Connection[DictRow]] = ConnectionPool(
    required("SHOP_DATABASE_URL"),
    min_size=4,
    max_size=8,
    open=False,
    kwargs={"autocommit": True, "row_factory": dict_row},
)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    database.open(wait=True)
    yield
    database.close()


app = FastAPI(lifespan=lifespan)


@app.get("/health")
def health() -> dict[str, str]:
    return {"status": "ok"}


@app.get("/products")
def search(q: str = "") -> list[dict[str, Any]]:
    with database.connection() as connection:
        found = connection.execute(
            "SELECT product_id, name, price_cents FROM product "
            "WHERE name ILIKE %s ORDER BY product_id LIMIT 20",
            [f"%{q}%"],
        )
        return found.fetchall()


@app.get("/products/{product_id}")
def product(product_id: int) -> dict[str, Any]:
    kept = cache.get(f"product:{product_id}")
    if kept is not None:
        return json.loads(str(kept))  # type: ignore[no-any-return]  # what we put there ourselves
    with database.connection() as connection:
        found = connection.execute(
            "SELECT product_id, name, category, price_cents, description FROM product WHERE product_id = %s",
            [product_id],
        ).fetchone()
        if found is None:
            raise HTTPException(404, f"there is no product {product_id}")
        others = connection.execute(
            "SELECT product_id, name FROM product WHERE category = %s AND product_id > %s LIMIT 4",
            [found["category"], product_id],
        ).fetchall()
    page = {**found, "recommendations": others}
    cache.set(f"product:{product_id}", json.dumps(page), ex=KEPT_S)
    return page


@app.exception_handler(Exception)
def failed(request: Request, error: Exception) -> JSONResponse:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return JSONResponse({"error": f"{type(error).__name__}: {error}", "service": "catalogue"}, 500)
