"""A small shop: eight services, a PostgreSQL, a Redis, and one place where the time goes.

::

    gateway --+-- catalogue -- Redis (product:<id>), PostgreSQL
              +-- cart ------- Redis (cart:<user>)
              +-- stock ------ PostgreSQL
              +-- order ---+-- stock
              |            +-- PostgreSQL (orders and order_line in one transaction)
              |            +-- Redis list fulfilment --> worker -- PostgreSQL
              +-- payment -+-- bank (not ours: it stands for somebody else's API)
                           +-- PostgreSQL

**The natural hotspot.** Before stock is reserved, and before an item goes into a cart, the stock
service adds up what moved of the product in the last thirty days (``SELECT ... FROM
stock_movement``). That table holds the shop's history and has no index that fits, so each check
reads all of it: about ten milliseconds, several times what anything else in an order takes. It shows
as ``stock: SELECT stock_movement``. ``SHOP_MENDED=1``, read when the database is set up
(`perflab.demo.shop.database`), creates the index; then no place stands out.

**Settings** are environment variables, nothing else: ``SHOP_DATABASE_URL``, ``SHOP_REDIS_URL``, one
``SHOP_<SERVICE>_URL`` for each service that is called, and

``SHOP_GATEWAY_LIMIT``
    How many requests the gateway works on at once; the others wait their turn (unlimited when
    left out). A small number makes a crowd of some users harm all others: a few slow requests fill
    the gateway and everybody queues.
``SHOP_BANK_LATENCY_MS``
    How long the bank thinks about a charge (2 when left out).
"""
