"""Something to sell."""

# ruff: noqa: RUF012  (Django reads these attributes, nobody changes them)

from __future__ import annotations

from typing import Any

from django.db import migrations


def stock(apps: Any, editor: Any) -> None:
    """Put twenty products on the shelf."""
    product = apps.get_model("shop", "Product")
    product.objects.bulk_create(
        product(name=f"product {n}", stock=1000, text="x" * 50 * n) for n in range(20)
    )


class Migration(migrations.Migration):
    dependencies = [("shop", "0001_initial")]
    operations = [migrations.RunPython(stock, migrations.RunPython.noop)]
