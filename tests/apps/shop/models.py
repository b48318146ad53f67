"""What the shop keeps. Every change adds to a chain, in which each entry proves the last."""

from __future__ import annotations

import hashlib

from django.db import models, transaction


class Customer(models.Model):
    """Somebody who orders."""

    name = models.CharField(max_length=100, unique=True)
    orders_placed = models.PositiveIntegerField(default=0)


class Product(models.Model):
    """Something in stock."""

    name = models.CharField(max_length=200)
    stock = models.IntegerField(default=0)
    text = models.TextField(default="")


class Order(models.Model):
    """An order of one customer."""

    customer = models.ForeignKey(Customer, on_delete=models.CASCADE)
    reference = models.CharField(max_length=40, unique=True)
    created = models.DateTimeField(auto_now_add=True, db_index=True)


class Line(models.Model):
    """One product of an order."""

    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="lines")
    product = models.ForeignKey(Product, on_delete=models.PROTECT)
    quantity = models.PositiveIntegerField()
    note = models.TextField(blank=True)


class Entry(models.Model):
    """One transaction. ``digest`` covers ``what`` and the digest of the entry before."""

    what = models.CharField(max_length=100, db_index=True)
    digest = models.CharField(max_length=64)

    @classmethod
    def append(cls, what: str) -> Entry:
        """Add to the chain, inside the transaction that did ``what``."""
        assert transaction.get_connection().in_atomic_block
        last = cls.objects.order_by("-id").values_list("digest", flat=True).first()
        return cls.objects.create(what=what, digest=chained(last or "", what))


def chained(digest: str, what: str) -> str:
    """The digest of an entry after one with ``digest``."""
    return hashlib.sha256(f"{digest} {what}".encode()).hexdigest()
