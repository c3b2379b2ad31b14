"""The faults that are planted in the demo's shop, and what is right to name for each, written beforehand.

The shop is the mended one, in which nothing stands out. Each fault holds an average request up by more than
any other place does (at least 4 ms; the greatest place of the shop without a fault takes about 3). Right is
the place that an engineer would have to go to:

- what a handler does itself (burning, sleeping, waiting for its own lock or pool) is its operation;
- statements and commands are the caller's operation on the store, however often they run;
- a bank that answers late is the call to it;
- a late network is the edge between the two services. All callers of a service are behind one network: for
  ``stock``, which has two, each of the two edges is right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes
    ----------
    name, kind : str
    expected : tuple of str
        The entities that count as right.
    where : str
        What it is planted in: a handler, a network, the bank.
    what : dict
        What is done there, see ``faulty.py``; empty for what is done to the stores from outside.
    """

    name: str
    kind: str
    expected: tuple[str, ...]
    where: str = ""
    what: dict[str, Any] = field(default_factory=dict)


HANDLERS = {
    "cart.add": "cart: POST /carts/{user}/items",
    "stock.reserve": "stock: POST /reservations",
    "stock.level": "stock: GET /stock/{product_id}",
    "order.place": "order: POST /orders",
    "catalogue.product": "catalogue: GET /products/{product_id}",
    "catalogue.search": "catalogue: GET /products",
    "payment.pay": "payment: POST /payments",
}
_HEAVY = "(SELECT count(*) FROM generate_series(1, {rows})) > 0"
_STATEMENTS = {
    "stock.reserve": ("stock: SELECT stock", "SELECT level FROM stock WHERE product_id = 12"),
    "stock.level": ("stock: SELECT stock", "SELECT level FROM stock WHERE product_id = 12"),
    "catalogue.product": ("catalogue: SELECT product", "SELECT name FROM product WHERE product_id = 12"),
    "catalogue.search": ("catalogue: SELECT product", "SELECT name FROM product WHERE product_id = 12"),
    "order.place": ("order: SELECT product", "SELECT price_cents FROM product WHERE product_id = 12"),
    "payment.pay": ("payment: SELECT orders", "SELECT total_cents FROM orders WHERE order_id = 12"),
}


_WHAT = {"CPU burn": "cpu", "pool too small": "pool"}


def _inside(title: str, where: str, ms: int) -> Fault:
    what = {"kind": _WHAT.get(title, title), "ms": ms}
    return Fault(f"{title} {ms} ms in {where}", title, (HANDLERS[where],), where, what)


def _bank(ms: int) -> Fault:
    return Fault(
        f"bank late by {ms} ms", "slow third party", ("payment: POST bank",), "bank.charge", {"ms": ms}
    )


def _row_lock(held_ms: int, free_ms: int) -> Fault:
    name = f"row lock {held_ms} of {held_ms + free_ms} ms on stock"
    return Fault(name, "lock", ("stock: UPDATE stock",), "rows", {"held_ms": held_ms, "free_ms": free_ms})


def _large_value(entity: str, where: str, kind: str, mb: int) -> Fault:
    what = {"kind": kind, "key": "product:large" if kind == "get" else "cart:large", "bytes": mb * 1_000_000}
    name = f"slow cache, {mb} MB {'written ' if kind == 'hset' else ''}in {where}"
    return Fault(name, "slow cache", (entity,), where, what)


def _many(where: str, times: int) -> Fault:
    entity, statement = _STATEMENTS[where]
    what = {"kind": "statements", "times": times, "statement": statement}
    return Fault(f"N+1, {times} statements in {where}", "N+1", (entity,), where, what)


def _slow(where: str, rows: int) -> Fault:
    entity, statement = _STATEMENTS[where]
    what = {"kind": "statements", "times": 1, "statement": f"{statement} AND {_HEAVY.format(rows=rows)}"}
    return Fault(f"slow query of {rows:,} rows in {where}", "slow query", (entity,), where, what)


def _network(service: str, ms: int, *callers: str) -> Fault:
    edges = tuple(f"{caller} -> {service}" for caller in callers)
    return Fault(
        f"network {ms} ms before {service}", "network delay", edges, f"network.{service}", {"ms": ms}
    )


def _each(make: Callable[..., Fault], *, title: str = "", **places: tuple[int, ...]) -> Iterator[Fault]:
    """Make a fault of each strength in each place; ``cart_add`` is ``cart.add``."""
    for place, strengths in places.items():
        for strength in strengths:
            where = place.replace("_", ".")
            yield make(title, where, strength) if title else make(where, strength)


FAULTS: tuple[Fault, ...] = (
    *_each(_inside, title="CPU burn", cart_add=(40, 80), stock_reserve=(25, 60), order_place=(25, 60)),
    *_each(_inside, title="CPU burn", catalogue_product=(25, 50), payment_pay=(40,)),
    *_each(_inside, title="sleep", cart_add=(60,), stock_level=(40, 100), order_place=(40, 120)),
    *_each(_inside, title="sleep", catalogue_search=(80,), payment_pay=(40, 120)),
    *_each(_inside, title="lock", stock_reserve=(50,), order_place=(60,), cart_add=(80,)),
    *(_row_lock(held_ms, free_ms) for held_ms, free_ms in ((60, 20), (150, 50))),
    *_each(_inside, title="pool too small", payment_pay=(60, 120), catalogue_search=(90,)),
    *_each(
        _many, stock_reserve=(25, 60), catalogue_product=(30, 80), order_place=(40, 80), payment_pay=(60,)
    ),
    *_each(_slow, stock_level=(300_000, 800_000), catalogue_search=(800_000,), order_place=(500_000,)),
    *_each(_slow, payment_pay=(600_000,)),
    *(_large_value("catalogue: GET product", "catalogue.product", "get", mb) for mb in (4, 10)),
    _large_value("cart: HSET cart", "cart.add", "hset", 12),
    *(_bank(ms) for ms in (40, 80, 200)),
    *(_network("cart", ms, "gateway") for ms in (60, 120)),
    *(_network("catalogue", ms, "gateway") for ms in (30, 60)),
    *(_network("order", ms, "gateway") for ms in (40, 100)),
    *(_network("payment", ms, "gateway") for ms in (50, 120)),
    *(_network("stock", ms, "gateway", "order") for ms in (30, 70)),
)
