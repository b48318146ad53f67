"""A Django app: databases are replicated as ``settings.SQLITEREPLICA`` says.

Add ``"sqlitereplica.integrations.django"`` to ``INSTALLED_APPS``, and describe replication by
alias (``integrations/configured.py`` has the form)::

    SQLITEREPLICA = {"default": "s3://bucket/app"}

Who starts it: ``start()`` in ``wsgi.py``, which only servers load, once in each worker; in
``asgi.py``, where servers end without the interpreter's own exit, ``Replicated`` around the
application. Where neither is done, the first request starts it. ``AppConfig.ready()`` never
does: it runs for every management command, and twice under ``runserver``.
"""

from __future__ import annotations

from sqlitereplica.integrations.django.databases import (
    replicator,
    replicators,
    start,
    stop,
)

__all__ = ["replicator", "replicators", "start", "stop"]
