"""What the server loads, once in each worker."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

from sqlitereplica.integrations.django import start

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
application = get_wsgi_application()
start()
