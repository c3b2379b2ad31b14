"""An order service: FastAPI on an asyncpg pool. Run it with ``uvicorn shop:app`` and ``DATABASE_URL`` set."""

import asyncio
import csv
import io
import json
import os
from contextlib import asynccontextmanager
from typing import Annotated

import asyncpg
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Request
from pydantic import BaseModel, Field


class Line(BaseModel):
    product: str
    quantity: int = Field(gt=0)


class NewOrder(BaseModel):
    customer: str
    lines: list[Line] = Field(min_length=1)


class OutOfStockError(Exception):
    pass


async def read_json(connection):
    for kind in ("json", "jsonb"):
        await connection.set_type_codec(kind, encoder=json.dumps, decoder=json.loads, schema="pg_catalog")


class Feed:
    """The last orders heard of on the database's channel, by a connection of its own."""

    def __init__(self):
        self.heard = []
        self.changed = asyncio.Event()

    async def hear(self, connection, pid, channel, payload):
        self.heard = [*self.heard[-99:], payload]
        self.changed.set()
        self.changed = asyncio.Event()


@asynccontextmanager
async def lifespan(app):
    url = os.environ["DATABASE_URL"]
    app.state.feed = Feed()
    async with asyncpg.create_pool(url, min_size=2, max_size=8, init=read_json, command_timeout=10) as pool:
        app.state.pool = pool
        listening = await asyncpg.connect(url)
        await listening.add_listener("orders", app.state.feed.hear)
        yield
        await listening.close()


app = FastAPI(lifespan=lifespan)


async def database(request: Request):
    async with request.app.state.pool.acquire() as connection:
        yield connection


Database = Annotated[asyncpg.Connection, Depends(database)]


async def write_audit_line(pool, what):
    await pool.execute("INSERT INTO audit_line (what) VALUES ($1)", what)


async def take_from_stock(connection, line):
    product = await connection.fetchrow(
        "UPDATE product SET stock = stock - $2 WHERE name = $1 AND stock >= $2 RETURNING id, price_cents",
        line.product,
        line.quantity,
    )
    if product is None:
        raise OutOfStockError(line.product)
    return product


@app.post("/orders", status_code=201)
async def place_order(order: NewOrder, request: Request, tasks: BackgroundTasks, connection: Database):
    try:
        async with connection.transaction():
            order_id = await connection.fetchval(
                "INSERT INTO customer_order (customer) VALUES ($1) RETURNING id", order.customer
            )
            items = []
            for line in order.lines:
                product = await take_from_stock(connection, line)
                items.append((order_id, product["id"], line.quantity, product["price_cents"]))
            await connection.executemany(
                "INSERT INTO order_item VALUES ($1, $2, $3, $4)",
                items,
            )
    except OutOfStockError as error:
        raise HTTPException(409, f"not enough of {error}") from error
    tasks.add_task(write_audit_line, request.app.state.pool, f"order of {order.customer}")
    return {"id": order_id, "total_cents": sum(quantity * price for _, _, quantity, price in items)}


@app.get("/orders/{order_id}")
async def read_order(order_id: int, connection: Database):
    found = await connection.fetchrow(
        """
        SELECT customer, status,
            (SELECT jsonb_agg(jsonb_build_object('product', p.name, 'quantity', quantity) ORDER BY p.name)
             FROM order_item i JOIN product p ON p.id = i.product_id WHERE i.order_id = o.id) AS lines
        FROM customer_order o WHERE id = $1
        """,
        order_id,
    )
    if found is None:
        raise HTTPException(404)
    return dict(found)


@app.delete("/orders/{order_id}", status_code=204)
async def cancel_order(order_id: int, connection: Database):
    async with connection.transaction(isolation="repeatable_read"):
        await connection.execute(
            """
            UPDATE product p SET stock = p.stock + i.quantity
            FROM order_item i WHERE i.order_id = $1 AND i.product_id = p.id
            """,
            order_id,
        )
        if await connection.execute("DELETE FROM customer_order WHERE id = $1", order_id) == "DELETE 0":
            raise HTTPException(404)


@app.post("/products/import")
async def import_products(request: Request, connection: Database):
    """Take name, price and stock of products as CSV: COPY to a temporary table, then merge."""
    rows = csv.reader(io.StringIO((await request.body()).decode()))
    records = [(name, int(price), int(stock)) for name, price, stock in rows]
    async with connection.transaction():
        await connection.execute(
            "CREATE TEMP TABLE arriving (name text, price_cents int, stock int) ON COMMIT DROP"
        )
        copied = await connection.copy_records_to_table("arriving", records=records)
        merged = await connection.execute(
            """
            INSERT INTO product (name, price_cents, stock) SELECT name, price_cents, stock FROM arriving
            ON CONFLICT (name) DO UPDATE SET price_cents = excluded.price_cents, stock = excluded.stock
            """
        )
    return {"copied": copied, "merged": merged}


@app.post("/products/{name}/stock")
async def count_stock(name: str, amount: int, request: Request):
    """Correct the stock of one product, one correction at a time: two connections, and an advisory lock."""
    pool = request.app.state.pool
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext($1))", name)
        done = await connection.execute("UPDATE product SET stock = $2 WHERE name = $1", name, amount)
        await write_audit_line(pool, f"counted {name}")
    if done == "UPDATE 0":
        raise HTTPException(404)
    return {"stock": amount}


@app.get("/report")
async def report(connection: Database):
    """Sum up what was sold, row by row through a server-side cursor."""
    sold: dict[str, int] = {}
    async with connection.transaction(readonly=True):
        query = "SELECT name, quantity FROM order_item JOIN product ON product.id = product_id"
        async for row in connection.cursor(query, prefetch=10):
            sold[row["name"]] = sold.get(row["name"], 0) + row["quantity"]
    return dict(sorted(sold.items()))


@app.get("/feed")
async def feed(request: Request):
    return request.app.state.feed.heard
