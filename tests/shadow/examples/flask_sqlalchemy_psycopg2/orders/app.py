"""What is answered."""

import io
import os

import requests
from flask import Flask, jsonify, request
from sqlalchemy import func, select, text, update

from orders import jobs
from orders.models import Line, Order, Product, Receipt, Session, engine

app = Flask(__name__)
jobs.start()


@app.teardown_appcontext
def give_back(error):
    Session.remove()


@app.post("/products/import")
def import_products():
    rows = "".join(f"{row['sku']}\t{row['price']}\t{row['stock']}\n" for row in request.json)
    connection = engine.raw_connection()
    try:
        with connection.cursor() as cursor:
            cursor.copy_expert("COPY product (sku, price, stock) FROM STDIN", io.StringIO(rows))
            copied = cursor.rowcount
        connection.commit()
    finally:
        connection.close()
    return jsonify(copied=copied), 201


@app.get("/products/<prefix>")
def products(prefix):
    found = Session.scalars(select(Product).where(Product.sku.startswith(prefix)).order_by(Product.sku))
    return jsonify([{"id": product.id, "sku": product.sku, "stock": product.stock} for product in found])


@app.post("/orders")
def place_order():
    given = request.json
    order = Order(customer=given["customer"])
    Session.add(order)
    for sku, quantity in sorted(given["lines"].items()):
        Session.execute(select(func.pg_advisory_xact_lock(func.hashtext(sku))))
        taken = Session.execute(
            update(Product)
            .where(Product.sku == sku, Product.stock >= quantity)
            .values(stock=Product.stock - quantity)
            .returning(Product.id)
        ).scalar()
        if taken is None:
            Session.rollback()
            return jsonify(error=f"out of stock: {sku}"), 409
        order.lines.append(Line(product_id=taken, quantity=quantity))
    Session.commit()
    if given.get("receipt") == "now":
        return jsonify(id=order.id, total=jobs.executor.submit(jobs.write_receipt, order.id).result(10)), 201
    jobs.executor.submit(jobs.write_receipt, order.id)
    return jsonify(id=order.id), 201


@app.get("/orders/<int:order_id>")
def show_order(order_id):
    order = Session.get(Order, order_id)
    if order is None:
        return jsonify(error="no such order"), 404
    total = Session.scalar(select(Receipt.total).where(Receipt.order_id == order_id))
    lines = [{"sku": line.product.sku, "quantity": line.quantity} for line in order.lines]
    return jsonify(id=order.id, customer=order.customer, state=order.state, lines=lines, total=total)


@app.post("/orders/<int:order_id>/payment")
def pay(order_id):
    order = Session.get(Order, order_id, with_for_update=True)
    bank = os.environ.get("BANK_URL")
    if bank:
        requests.post(f"{bank}/charges", json={"order": order_id}, timeout=5).raise_for_status()
    nested = Session.begin_nested()
    order.state = "refused"
    nested.rollback()
    order.state = "paid"
    Session.commit()
    return jsonify(state=order.state)


@app.post("/orders/<int:order_id>/shipment")
def ship(order_id):
    """Ship it, and answer with what a listener hears of that."""
    listener = jobs.connect()
    try:
        listener.cursor().execute("LISTEN shipped")
        Session.execute(text("SELECT pg_notify('shipped', :number)"), {"number": str(order_id)})
        Session.execute(update(Order).where(Order.id == order_id).values(state="shipped"))
        Session.commit()
        told = []
        while str(order_id) not in told:
            told = jobs.wait_for_one(listener, 5)
    finally:
        listener.close()
    return jsonify(id=order_id, told=True)


@app.get("/heard")
def heard():
    return jsonify([{"id": int(number)} for number in jobs.heard])
