"""Serve Flask on PostgreSQL, to measure what watching it costs: python overhead_app.py PORT URL."""

from __future__ import annotations

import sys

from flask import Flask, jsonify, request
from psycopg_pool import ConnectionPool
from waitress import serve

app = Flask(__name__)
pool = ConnectionPool(sys.argv[2], min_size=4, max_size=4, open=True)


@app.get("/orders/<int:number>")
def order(number: int):
    with pool.connection() as connection:
        row = connection.execute("SELECT id, note FROM orders WHERE id = %s", (number,)).fetchone()
        lines = connection.execute("SELECT amount FROM line WHERE order_id = %s", (number,)).fetchall()
    return jsonify({"order": row, "lines": [amount for (amount,) in lines]})


@app.post("/orders")
def place():
    with pool.connection() as connection:
        made = connection.execute(
            "INSERT INTO orders (note) VALUES (%s) RETURNING id", (request.get_json()["note"],)
        ).fetchone()
        connection.execute("INSERT INTO line (order_id, amount) VALUES (%s, 1)", (made[0],))
    return jsonify({"order": made[0]}), 201


serve(app, host="127.0.0.1", port=int(sys.argv[1]), threads=4, channel_timeout=600)
