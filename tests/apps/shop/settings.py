"""Settings of the shop. The environment says where database and replica are."""

from __future__ import annotations

import os

SECRET_KEY = "of a test"
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.sessions",
    "sqlitereplica.integrations.django",
    "shop",
]
ROOT_URLCONF = "shop.urls"
WSGI_APPLICATION = os.environ.get("SHOP_WSGI", "shop.wsgi.application")
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
STATIC_URL, MEDIA_URL = "static/", "media/"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ["SHOP_DATABASE"],
        "OPTIONS": {
            "timeout": 30,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=wal; PRAGMA synchronous=normal",
        },
    }
}
SQLITEREPLICA = {
    "default": {
        "replicas": os.environ["SHOP_REPLICA"],
        "restore": "if-missing",
        "health": {"max_lag": 1.0},
        "stop_timeout": 60,
    },
}
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "INFO"},
}
