"""Every answer to a request that wrote is held until that is durable."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

from sqlitereplica.integrations.django import replicators
from sqlitereplica.integrations.wsgi import DurabilityMiddleware

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
application = DurabilityMiddleware(get_wsgi_application(), replicators(), timeout=60)
