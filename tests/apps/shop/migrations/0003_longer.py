"""Changed while the shop is open: on SQLite these make tables anew."""

# ruff: noqa: RUF012  (Django reads these attributes, nobody changes them)

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("shop", "0002_products"),
    ]

    operations = [
        migrations.AlterField(
            model_name="entry",
            name="what",
            field=models.CharField(db_index=True, max_length=100),
        ),
        migrations.AlterField(
            model_name="product",
            name="name",
            field=models.CharField(max_length=200),
        ),
    ]
