"""What an ASGI server loads: Django, with a lifespan around it."""

from __future__ import annotations

import os

from django.core.asgi import get_asgi_application

from sqlitereplica.integrations.asgi import Replicated
from sqlitereplica.integrations.django import replicators

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
application = Replicated(get_asgi_application(), replicators)
