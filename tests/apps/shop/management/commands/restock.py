"""A management command: another process that writes to the database."""

from __future__ import annotations

import os
import time
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.db import transaction
from django.db.models import F

from shop.models import Entry, Order, Product


class Command(BaseCommand):
    """Refill the stock again and again, and forget old orders."""

    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        """Say for how long."""
        parser.add_argument("--seconds", type=float, default=0.0)

    def handle(self, *args: Any, **options: Any) -> None:
        """Do it at least once."""
        end = time.monotonic() + options["seconds"]
        number = 0
        while True:
            with transaction.atomic():
                Product.objects.update(stock=F("stock") + 100)
                for product in Product.objects.filter(pk__gt=number % 20)[:3]:
                    product.text = os.urandom(800).hex()
                    product.save()
                old = Order.objects.order_by("-pk").values_list("pk", flat=True)[300:]
                Order.objects.filter(pk__in=list(old)).delete()
                Entry.append(f"restock {os.getpid()} {number}")
            if number == 0:
                self.stdout.write("restocked")
                self.stdout.flush()
            number += 1
            if time.monotonic() >= end:
                return
            time.sleep(0.01)
