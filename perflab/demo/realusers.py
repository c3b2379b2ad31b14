"""The shop's ordinary customers: ``python -m perflab.demo.realusers --gateway URL --rate 4 --log FILE``.

They browse, fill carts, order and pay at an even pace, whether the shop answers quickly or not, until
told to stop (SIGTERM, or ``--for`` seconds). Every finished request is one JSON line in the log::

    {"time_ns": ..., "what": "POST /orders", "status": 201, "seconds": 0.02, "id": 417,
     "reference": "customer-3f2a...", "error": null}

``time_ns`` is when it began (Unix epoch, UTC); ``status`` is 0 and ``error`` says why when no answer
came; ``id`` is the order or payment that was acknowledged, or ``user/product`` for an item put into a
cart. `perflab.demo.check` looks afterwards whether each acknowledged write is there.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import time
import uuid
from pathlib import Path
from typing import Any, TextIO

import httpx

PRODUCTS = 500
_WORDS = ("kitchen", "garden", "books", "music", "item 7", "item 12", "tools", "toys")


class Customers:
    """Customers of the shop behind a gateway, each doing one thing at a time.

    Parameters
    ----------
    gateway
        The shop's address.
    log
        Where each finished request is written, one line each, at once.
    seed
        Makes what they do repeatable (references stay unique).
    """

    def __init__(self, gateway: str, log: TextIO, seed: int | None = None) -> None:
        self._gateway = gateway
        self._log = log
        self._dice = random.Random(seed)
        self._unpaid: list[int] = []
        self._orders: list[int] = []

    async def visit(self, rate_per_s: float, stop: asyncio.Event, for_s: float | None = None) -> None:
        """Send requests at an even pace until told to stop, then wait a little for the answers still due."""
        began = time.monotonic()
        under_way: set[asyncio.Task[None]] = set()
        limits = httpx.Limits(max_connections=100)
        async with httpx.AsyncClient(base_url=self._gateway, timeout=15, limits=limits) as client:
            number = 0
            while not stop.is_set() and (for_s is None or number / rate_per_s < for_s):
                task = asyncio.create_task(self._act(client))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
                number += 1
                due = began + number / rate_per_s
                try:
                    await asyncio.wait_for(stop.wait(), max(0.0, due - time.monotonic()))
                except TimeoutError:
                    continue
            if under_way:
                _, late = await asyncio.wait(under_way, timeout=5)
                for task in late:
                    task.cancel()
                await asyncio.gather(*late, return_exceptions=True)

    async def _act(self, client: httpx.AsyncClient) -> None:
        reference = f"customer-{uuid.uuid4().hex}"
        product = self._dice.randint(1, PRODUCTS)
        what = self._dice.choices(
            ("search", "look", "cart", "order", "pay", "follow"), (15, 35, 15, 15, 12, 8)
        )[0]
        if what == "pay" and self._unpaid:
            body: dict[str, Any] = {"order_id": self._unpaid.pop(0), "reference": reference}
            await self._send(client, "POST /payments", "POST", "/payments", reference, body)
        elif what in {"order", "pay"}:
            lines = [{"product_id": product, "quantity": self._dice.randint(1, 3)}]
            body = {"user": reference, "lines": lines, "note": reference}
            await self._send(client, "POST /orders", "POST", "/orders", reference, body)
        elif what == "cart":
            body = {"product_id": product, "quantity": 1, "note": reference}
            await self._send(
                client, "POST /carts/{user}/items", "POST", f"/carts/{reference}/items", reference, body
            )
        elif what == "follow" and self._orders:
            order = self._dice.choice(self._orders)
            await self._send(client, "GET /orders/{order_id}", "GET", f"/orders/{order}", reference)
        elif what == "search":
            await self._send(
                client, "GET /products", "GET", f"/products?q={self._dice.choice(_WORDS)}", reference
            )
        else:
            await self._send(client, "GET /products/{product_id}", "GET", f"/products/{product}", reference)

    async def _send(
        self,
        client: httpx.AsyncClient,
        what: str,
        method: str,
        path: str,
        reference: str,
        body: dict[str, Any] | None = None,
    ) -> None:
        time_ns, began = time.time_ns(), time.perf_counter()
        status, written, error = 0, None, None
        try:
            answer = await client.request(method, path, json=body)
            status = answer.status_code
            if status < 300 and method == "POST":
                written = self._remember(what, reference, answer.json())
            elif status >= 300:
                error = answer.text[:300]
        except httpx.HTTPError as failure:
            error = f"{type(failure).__name__}: {failure}"
        except asyncio.CancelledError:
            error = "no answer before the end"
            raise
        finally:
            line = {
                "time_ns": time_ns,
                "what": what,
                "status": status,
                "seconds": round(time.perf_counter() - began, 6),
                "id": written,
                "reference": reference,
                "error": error,
            }
            self._log.write(json.dumps(line) + "\n")
            self._log.flush()

    def _remember(self, what: str, reference: str, answer: dict[str, Any]) -> int | str:
        if what == "POST /orders":
            order = int(answer["order_id"])
            self._unpaid.append(order)
            self._orders.append(order)
            return order
        if what == "POST /payments":
            return int(answer["payment_id"])
        return f"{reference}/{answer['product_id']}"


async def _run(gateway: str, rate_per_s: float, log_path: Path, for_s: float | None) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with log_path.open("a", encoding="utf-8") as log:
        await Customers(gateway, log).visit(rate_per_s, stop, for_s)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m perflab.demo.realusers", description="Customers of the demo shop."
    )
    parser.add_argument("--gateway", required=True, help="address of the shop's gateway")
    parser.add_argument("--rate", type=float, default=4.0, help="requests per second (4)")
    parser.add_argument(
        "--log", type=Path, required=True, help="file that gets a line for each finished request"
    )
    parser.add_argument(
        "--for", dest="for_s", type=float, default=None, help="seconds; until SIGTERM when left out"
    )
    chosen = parser.parse_args()
    if chosen.rate <= 0:
        parser.error(f"--rate must be above 0, not {chosen.rate}")
    asyncio.run(_run(chosen.gateway, chosen.rate, chosen.log, chosen.for_s))


if __name__ == "__main__":
    main()
