"""Gateway: the shop's front door; asks the services behind it and puts their answers together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.types import ASGIApp, Receive, Scope, Send

from .settings import number, required

log = logging.getLogger(__name__)
CATALOGUE = required("SHOP_CATALOGUE_URL")
CART = required("SHOP_CART_URL")
ORDER = required("SHOP_ORDER_URL")
STOCK = required("SHOP_STOCK_URL")
PAYMENT = required("SHOP_PAYMENT_URL")
JSON = {"content-type": "application/json"}


class Line(BaseModel):
    product_id: int
    quantity: int = Field(default=1, ge=1)


class CartItem(Line):
    note: str = ""


class Order(BaseModel):
    user: str
    lines: list[Line] = Field(min_length=1)
    note: str = ""


class Payment(BaseModel):
    order_id: int
    amount_cents: int | None = None
    reference: str = ""


class RefusedError(Exception):
    """A service behind the gateway said no; its answer goes to the customer."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.body = body


class Limit:
    """Let only so many requests in at once; the others wait."""

    def __init__(self, app: ASGIApp, at_once: int) -> None:
        self.app = app
        self.places = asyncio.Semaphore(at_once)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == "/health":
            await self.app(scope, receive, send)
            return
        async with self.places:
            await self.app(scope, receive, send)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    limits = httpx.Limits(max_connections=200, max_keepalive_connections=50)
    async with httpx.AsyncClient(timeout=15, limits=limits) as client:
        app.state.client = client
        yield


app = FastAPI(lifespan=lifespan)
if (at_once := int(number("SHOP_GATEWAY_LIMIT", 0))) > 0:
    app.add_middleware(Limit, at_once=at_once)


async def ask(method: str, url: str, body: BaseModel | None = None, **query: str) -> httpx.Response:
    client: httpx.AsyncClient = app.state.client
    if body is None:
        answer = await client.request(method, url, params=query or None)
    else:
        answer = await client.request(method, url, content=body.model_dump_json(), headers=JSON)
    if 400 <= answer.status_code < 500:
        raise RefusedError(answer.status_code, answer.json())
    return answer.raise_for_status()


async def forward(method: str, url: str, body: BaseModel | None = None, **query: str) -> Response:
    answer = await ask(method, url, body, **query)
    return Response(answer.content, answer.status_code, media_type="application/json")


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}


@app.get("/products")
async def search(q: str = "") -> Response:
    return await forward("GET", f"{CATALOGUE}/products", q=q)


@app.get("/products/{product_id}")
async def product(product_id: int) -> Response:
    found, stock = await asyncio.gather(
        ask("GET", f"{CATALOGUE}/products/{product_id}"),
        ask("GET", f"{STOCK}/stock/{product_id}"),
    )
    return JSONResponse({**found.json(), "level": stock.json()["level"]})


@app.post("/carts/{user}/items")
async def add_to_cart(user: str, item: CartItem) -> Response:
    stock = await ask("GET", f"{STOCK}/stock/{item.product_id}/availability")
    if stock.json()["available"] < item.quantity:
        raise RefusedError(409, {"error": f"not enough of product {item.product_id}"})
    return await forward("POST", f"{CART}/carts/{user}/items", item)


@app.get("/carts/{user}")
async def cart(user: str) -> Response:
    return await forward("GET", f"{CART}/carts/{user}")


@app.post("/orders")
async def place_order(order: Order) -> Response:
    return await forward("POST", f"{ORDER}/orders", order)


@app.get("/orders/{order_id}")
async def order(order_id: int) -> Response:
    return await forward("GET", f"{ORDER}/orders/{order_id}")


@app.post("/payments")
async def pay(payment: Payment) -> Response:
    return await forward("POST", f"{PAYMENT}/payments", payment)


@app.exception_handler(RefusedError)
async def refused(_: Request, error: RefusedError) -> JSONResponse:
    return JSONResponse(error.body, error.status)


@app.exception_handler(httpx.HTTPError)
async def unanswered(request: Request, error: httpx.HTTPError) -> JSONResponse:
    log.warning("%s %s: %s: %s", request.method, request.url.path, type(error).__name__, error)
    return JSONResponse({"error": f"{type(error).__name__}: {error}", "service": "gateway"}, 502)


@app.exception_handler(Exception)
async def failed(request: Request, error: Exception) -> JSONResponse:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return JSONResponse({"error": f"{type(error).__name__}: {error}", "service": "gateway"}, 500)
