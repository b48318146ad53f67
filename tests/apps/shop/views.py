"""Orders come in, and some are confirmed only when they are durable."""

from __future__ import annotations

import os

from django.db import transaction
from django.db.models import F
from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_POST

from shop.models import Customer, Entry, Line, Order, Product
from sqlitereplica.integrations.django import replicator


@csrf_exempt
@require_POST
def order(request: HttpRequest, reference: str) -> JsonResponse:
    """Take an order; with ``?durable`` the answer says that it cannot be lost."""
    size = int(request.GET.get("size", "50"))
    with transaction.atomic():
        customer, _ = Customer.objects.get_or_create(name=reference.partition("-")[0])
        placed = Order.objects.create(customer=customer, reference=reference)
        for product in Product.objects.order_by("?")[:3]:
            Line.objects.create(
                order=placed, product=product, quantity=2, note=os.urandom(size).hex()
            )
            Product.objects.filter(pk=product.pk).update(stock=F("stock") - 2)
        Customer.objects.filter(pk=customer.pk).update(
            orders_placed=F("orders_placed") + 1
        )
        entry = Entry.append(f"order {reference}")
    if "durable" in request.GET:
        replicator().sync(timeout=30)
    return JsonResponse({"order": placed.pk, "entry": entry.pk})


@require_GET
def status(request: HttpRequest) -> JsonResponse:
    """How the shop and its replication are."""
    now = replicator().status()
    return JsonResponse(
        {
            "pid": os.getpid(),
            "entries": Entry.objects.count(),
            "state": now.state,
            "ok": now.ok,
            "txid": now.txid,
            "by": now.pid,
        }
    )
