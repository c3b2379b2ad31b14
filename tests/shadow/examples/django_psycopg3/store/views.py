"""What the shop answers."""

import json
from decimal import Decimal

from django.contrib.auth import authenticate, login
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.db import IntegrityError, connection, transaction
from django.db.models import F
from django.http import JsonResponse, StreamingHttpResponse
from django.views.decorators.cache import cache_page
from django.views.decorators.http import require_POST

from store.models import Event, Line, Order, Product


class OutOfStock(Exception):
    """Less is there than was ordered."""


@require_POST
def sign_up(request):
    given = json.loads(request.body)
    try:
        with transaction.atomic():
            user = User.objects.create_user(given["name"], password=given["password"])
    except IntegrityError:
        return JsonResponse({"error": "taken"}, status=409)
    login(request, user)
    return JsonResponse({"id": user.pk, "name": user.username}, status=201)


@require_POST
def log_in(request):
    given = json.loads(request.body)
    user = authenticate(request, username=given["name"], password=given["password"])
    if user is None:
        return JsonResponse({"error": "who?"}, status=403)
    login(request, user)
    return JsonResponse({"id": user.pk})


def me(request):
    return JsonResponse({"name": request.user.username, "visits": visits(request)})


def visits(request):
    request.session["visits"] = request.session.get("visits", 0) + 1
    return request.session["visits"]


@require_POST
def import_products(request):
    products = [Product(**row) for row in json.loads(request.body)]
    made = Product.objects.bulk_create(products, batch_size=100)
    return JsonResponse({"made": [{"id": product.pk, "sku": product.sku} for product in made]}, status=201)


@cache_page(60)
def catalogue(request, prefix):
    found = Product.objects.filter(sku__startswith=prefix).values("id", "sku", "name", "price")
    return JsonResponse({"products": list(found)})


@require_POST
@login_required
def order(request):
    wanted = json.loads(request.body)
    try:
        with transaction.atomic():
            made = place_order(request.user, wanted)
    except OutOfStock as error:
        return JsonResponse({"error": f"out of stock: {error}"}, status=409)
    return JsonResponse({"id": made.pk, "total": made.total}, status=201)


def place_order(user, wanted):
    made = Order.objects.create(user=user)
    locked = Product.objects.select_for_update().filter(sku__in=wanted).order_by("sku")
    lines = []
    for product in locked:
        quantity = wanted[product.sku]
        try:
            with transaction.atomic():
                take(product, quantity)
        except OutOfStock:
            if not product.name.endswith("(optional)"):
                raise
            continue
        lines.append(Line(order=made, product=product, quantity=quantity, price=product.price))
    Line.objects.bulk_create(lines)
    made.total = sum((line.price * line.quantity for line in lines), Decimal(0))
    made.save(update_fields=["total"])
    transaction.on_commit(lambda: note(made, "placed"))
    return made


def take(product, quantity):
    Event.objects.create(content_type=type_of(product), object_id=product.pk, what="taken")
    if not Product.objects.filter(pk=product.pk, stock__gte=quantity).update(stock=F("stock") - quantity):
        raise OutOfStock(product.sku)


def note(thing, what):
    Event.objects.create(content_type=type_of(thing), object_id=thing.pk, what=what)


def type_of(thing):
    return ContentType.objects.get_for_model(thing)


@login_required
def show_order(request, order_id):
    found = Order.objects.filter(pk=order_id, user=request.user).first()
    if found is None:
        return JsonResponse({"error": "no such order"}, status=404)
    lines = found.lines.select_related("product").order_by("product__sku")
    events = Event.objects.filter(content_type=type_of(found), object_id=found.pk).order_by("id")
    return JsonResponse({
        "id": found.pk,
        "total": found.total,
        "paid": found.paid,
        "lines": [{"sku": line.product.sku, "left": line.product.stock} for line in lines],
        "events": [event.what for event in events],
    })  # fmt: skip


@transaction.non_atomic_requests
async def pay(request, order_id):
    user = await request.auser()
    paid = await Order.objects.filter(pk=order_id, user_id=user.pk, paid=False).aupdate(paid=True)
    if not paid:
        return JsonResponse({"error": "nothing to pay"}, status=409)
    order_type = await ContentType.objects.aget(app_label="store", model="order")
    await Event.objects.acreate(content_type=order_type, object_id=order_id, what="paid")
    return JsonResponse({"paid": paid})


@login_required
def report(request):
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT p.sku, sum(l.quantity), sum(l.quantity * l.price)
                 FROM store_line l JOIN store_product p ON p.id = l.product_id
                 JOIN store_order o ON o.id = l.order_id
                WHERE o.user_id = %s GROUP BY p.sku ORDER BY p.sku""",
            [request.user.pk],
        )
        rows = cursor.fetchall()
    orders = Order.objects.raw("SELECT * FROM store_order WHERE user_id = %s ORDER BY id", [request.user.pk])
    return JsonResponse({"sold": rows, "orders": [{"id": order.pk} for order in orders]})


@login_required
def export(request):
    def lines():
        for product in Product.objects.filter(sku__startswith=request.user.username).iterator(chunk_size=2):
            yield f"{product.sku};{product.stock}\n"

    return StreamingHttpResponse(lines(), content_type="text/csv")
