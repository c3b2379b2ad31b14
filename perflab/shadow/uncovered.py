"""What the agent knows, by name, and does not cover: clients of stores, what runs work later, servers.

A service that imports one is a hole: the preflight names it and refuses the run.
"""

from __future__ import annotations

_STORES = (
    "aio_pika aiokafka aiomysql aiopg aiosqlite apsw asyncmy bmemcached boto3 botocore cassandra "
    "clickhouse_connect clickhouse_driver confluent_kafka cx_Oracle duckdb elasticsearch kafka kombu lmdb "
    "motor mysql MySQLdb nats oracledb pg8000 pika psycopg2cffi pulsar pylibmc pymemcache pymongo pymssql "
    "pyodbc pysqlite3 rocketmq sqlcipher3 valkey zmq"
)
_SCHEDULERS = "apscheduler celery dramatiq huey procrastinate rq"
_PAST_THE_SOCKETS = "curl_cffi eventlet gevent grpc pycurl uvloop"
_SERVERS = (
    "aiohttp.web bjoern bottle channels cheroot daphne.server falcon granian litestar meinheld "
    "pyramid.router quart sanic tornado.httpserver tornado.web trio twisted.web.server uwsgi"
)
SERVERS = frozenset(_SERVERS.split())
"""Servers, and frameworks that may come with one: a request's mark is not seen there."""
UNCOVERED = SERVERS | frozenset(f"{_STORES} {_SCHEDULERS} {_PAST_THE_SOCKETS}".split())
"""All: clients of stores, what runs work later, what sends from C or replaces threads, servers."""


def what_is(name: str) -> str:
    """Say what people call it: a ``server`` or a ``driver``.

    Examples
    --------
    >>> what_is("tornado.web"), what_is("pymongo")
    ('server', 'driver')
    """
    return "server" if name in SERVERS else "driver"
